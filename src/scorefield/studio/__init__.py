"""The page `scorefield studio`: its server, which stands on the library's public names, and its files."""

from scorefield.studio.server import serve

__all__ = ["serve"]
