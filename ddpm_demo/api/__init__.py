"""The program's Python interface: `import ddpm_demo as dd`.

Each function only combines what other modules do, with the models' own defaults. Bad values raise
`ValueError` with one sentence.
"""

from ddpm_demo.api.learning import finetune, train
from ddpm_demo.api.model import Model, evaluate, load
from ddpm_demo.api.pictures import Film, Pictures, film, grid, noise
from ddpm_demo.diffusion import Schedule, Step

__all__ = [
    "Film",
    "Model",
    "Pictures",
    "Schedule",
    "Step",
    "evaluate",
    "film",
    "finetune",
    "grid",
    "load",
    "noise",
    "train",
]
