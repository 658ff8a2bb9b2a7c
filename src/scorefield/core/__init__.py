"""Pure tensor mathematics: nothing here knows of networks, data or files."""
