"""The settings of everything, and how they are described and checked. Nothing here is heavy."""

from ddpm_demo.config.configs import (
    LOSSES,
    NOISES,
    NORMS,
    PREDICTIONS,
    SCHEDULES,
    SEED_MAX,
    SPACINGS,
    T_MAX,
    T_MIN,
    VARIANCES,
    WEIGHTINGS,
    DiffusionConfig,
    ModelConfig,
    SampleConfig,
    TrainConfig,
    from_dict,
)
from ddpm_demo.config.fields import (
    Setting,
    SettingError,
    check,
    counted,
    either,
    number,
    one_of,
    require,
    setting,
    settings,
    whole_numbers,
)
from ddpm_demo.config.samplers import SAMPLERS, Sampler
from ddpm_demo.config.timesteps import default_timesteps, parse_timesteps
