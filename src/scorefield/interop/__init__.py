"""Weights and options of the original implementations, under their own names."""

from scorefield.interop import cards, ddpm, diffusers, guided_diffusion, improved_diffusion, ncsn

__all__ = ["cards", "ddpm", "diffusers", "guided_diffusion", "improved_diffusion", "ncsn"]
