"""The errors that a user can meet. Each says what was wrong, what was expected and what to do."""

__all__ = ["IncompatibleModel", "InputError", "ScorefieldError"]


class ScorefieldError(ValueError):
    """Base of every error this library raises on purpose; the command prints its text as one line."""


class InputError(ScorefieldError):
    """A value, file or option from the user cannot be used as given."""


class IncompatibleModel(ScorefieldError):
    """Two pieces do not fit together, found when they meet and before any work is done."""
