"""Runs and recipes: typed tables, and the objects that they describe."""
