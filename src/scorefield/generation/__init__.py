"""Sampling in blocks, and the options that say how a model is sampled."""
