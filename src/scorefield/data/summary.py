"""What was read, in sentences: said at the start of training, so that no reading of the data is silent."""

from __future__ import annotations

from collections.abc import Sequence

from scorefield.core.shapes import DataSpec, are_images
from scorefield.runtime.printable import one_line

__all__ = ["examples_in_words", "skipped_in_words"]

_CLASSES, _ARRAYS, _FILES = 10, 20, 3  # that are named
_NAME = 60  # characters of a name


def examples_in_words(
    spec: DataSpec, counts: Sequence[int] | None, arrays: Sequence[str] = (), labelled: bool = True
) -> str:
    """Shape, values, classes and further arrays of examples.

    Args:
        spec: What one example is.
        counts: Examples of each class; None where they are not counted.
        arrays: Names of the further arrays.
        labelled: Whether examples have labels.
    """
    low, high = spec.range
    levels = "" if spec.bins is None else f"{spec.bins} levels, "
    parts = [_shape(spec), f"{levels}values {low:.4g} … {high:.4g} in the model"]
    parts.append(_classes(spec.classes, counts) if labelled and spec.classes else "no classes")
    parts += [f"further arrays {_arrays(arrays)}"] if arrays else []
    return "; ".join(parts)


def skipped_in_words(names: Sequence[str], reasons: Sequence[str]) -> str:
    """How many files were skipped, and why the first of them; nothing where none was."""
    if not names:
        return ""
    why = [*reasons, *[""] * len(names)]
    first = [
        f"{name} ({reason})" if reason else name
        for name, reason in zip(names[:_FILES], why[:_FILES], strict=False)
    ]
    more = ", …" if len(names) > _FILES else ""
    return (
        f"skipped {len(names):,} broken image{'s' if len(names) > 1 else ''}: {', '.join(first)}{more}; "
        "--strict makes this an error"
    )


def _shape(spec: DataSpec) -> str:
    if not are_images(spec.shape):
        return f"examples of shape {'×'.join(map(str, spec.shape))}"
    channels, height, width = spec.shape
    return f"images of {width}×{height} pixels, {'grey' if channels == 1 else 'RGB'}"


def _arrays(names: Sequence[str]) -> str:
    more = f", … of {len(names):,}" if len(names) > _ARRAYS else ""
    return ", ".join(one_line(name, _NAME) for name in names[:_ARRAYS]) + more


def _classes(names: Sequence[str], counts: Sequence[int] | None) -> str:
    def said(k: int) -> str:
        return one_line(names[k], _NAME) + ("" if counts is None else f" ({counts[k]:,})")

    first = ", ".join(map(said, range(min(len(names), _CLASSES))))
    text = f"{len(names):,} {'class' if len(names) == 1 else 'classes'}: {first}"
    text += f", … {said(-1)}" if len(names) > _CLASSES else ""
    empty = sum(count == 0 for count in counts) if counts is not None else 0
    return text + (f" ({empty:,} of them without examples)" if empty else "")
