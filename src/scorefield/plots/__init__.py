"""Figures of runs and of evaluations."""
