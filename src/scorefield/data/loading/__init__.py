"""The order in which training visits examples, and reading them ahead of time."""
