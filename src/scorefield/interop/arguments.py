"""Networks from the name and the arguments of an original constructor."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Iterable, Mapping

from torch import nn

from scorefield.runtime.checks import did_you_mean
from scorefield.runtime.errors import InputError

__all__ = ["CASE_KEYS", "build"]

# In the configurations of some reference cases these stand beside the arguments, and describe the case.
CASE_KEYS = frozenset({"N", "size", "t", "labels", "num_parameters"})


def build(
    kinds: Mapping[str, Callable[..., nn.Module]],
    kind: str,
    arguments: Mapping[str, object],
    ignored: Collection[str] = (),
) -> nn.Module:
    """kinds[kind](**arguments) without the `ignored` ones.

    Raises InputError for an unknown kind, and for arguments that are unknown or missing.
    """
    if kind not in kinds:
        raise InputError(f"no network is called {kind!r}: {_hint(kind, kinds)}")
    arguments = {name: value for name, value in arguments.items() if name not in ignored}
    parameters = inspect.signature(kinds[kind]).parameters
    for name in arguments:
        if name not in parameters:
            raise InputError(f"{kind} has no argument {name!r}: {_hint(name, parameters)}")
    missing = [name for name, p in parameters.items() if p.default is p.empty and name not in arguments]
    if missing:
        raise InputError(f"{kind} needs {', '.join(missing)}; got {', '.join(arguments) or 'nothing'}")
    return kinds[kind](**arguments)


def _hint(name: str, allowed: Iterable[str]) -> str:
    allowed = list(allowed)
    return f"allowed are {', '.join(allowed)}{did_you_mean(name, allowed)}"
