"""The errors that a user can meet. Each says what was wrong, what was expected and what to do."""

__all__ = ["IncompatibleModel", "InputError", "ScorefieldError", "first_reason"]


class ScorefieldError(ValueError):
    """Base of every error this library raises on purpose; the command prints its text as one line.

    The text says what to do in Python, where most errors are raised.

    Args:
        text: What was wrong, what was expected, what to do.
        command: What to type for that in the command, such as "--resume"; the command adds it to the text.
    """

    def __init__(self, text: str = "", *, command: str = "") -> None:
        super().__init__(text)
        self.command = command


class InputError(ScorefieldError):
    """A value, file or option from the user cannot be used as given."""


class IncompatibleModel(ScorefieldError):
    """Two pieces do not fit together, found when they meet and before any work is done."""


def first_reason(error: BaseException) -> str:
    """What an error of another library says first, for one line: torch lists what does not fit below a headline."""
    headline, *reasons = str(error).strip().splitlines() or [type(error).__name__]
    return reasons[0].strip() if reasons else headline
