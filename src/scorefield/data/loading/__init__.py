"""The order in which training visits examples, and the thread that reads them ahead of time."""
