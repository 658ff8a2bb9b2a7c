"""Weights and options of the original implementations, under their own names."""

from scorefield.interop import cards, ddpm, diffusers, guided_diffusion, improved_diffusion, ncsn
from scorefield.interop.importing import Imported, import_run

__all__ = [
    "Imported",
    "cards",
    "ddpm",
    "diffusers",
    "guided_diffusion",
    "import_run",
    "improved_diffusion",
    "ncsn",
]
