"""Tensor mathematics: distributions, derivatives, noise, predictions, shapes."""
