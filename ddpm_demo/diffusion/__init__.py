"""The process of the papers: schedule, noise, denoiser, the walk back, and what may change it."""

from ddpm_demo.diffusion.denoiser import Denoise, Denoiser, Prediction, split
from ddpm_demo.diffusion.forward import chain, jump
from ddpm_demo.diffusion.interventions import (
    DRAWING,
    Between,
    Draw,
    Edit,
    FromPicture,
    Guidance,
    GuidanceInterval,
    Inpaint,
    NoiseAtEnd,
    ScaleEps,
    Terms,
)
from ddpm_demo.diffusion.schedule import KINDS, Noise, Schedule
from ddpm_demo.diffusion.walk import (
    At,
    Intervention,
    Move,
    Moved,
    State,
    Step,
    StopRun,
    Term,
    total,
)
