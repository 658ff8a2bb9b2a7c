"""Weights and options of the original implementations, under their own names."""

from scorefield.interop import ddpm, guided_diffusion, improved_diffusion, ncsn

__all__ = ["ddpm", "guided_diffusion", "improved_diffusion", "ncsn"]
