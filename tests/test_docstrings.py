"""The check of `make lint` finds what is planted."""

import importlib
from pathlib import Path

import pytest

TOOLS = Path(__file__).parent.parent / "tools"
PLANTED = '''
"""A package."""
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypedDict, Unpack

__all__ = ["Base", "Child", "Level", "bare", "complete", "listed", "missing", "repeated", "stale", "wrapped"]


class Table(TypedDict, total=False):
    steps: int


def complete(x, *, t=0, **options: "Unpack[Table]"):
    """x_t.

    Args:
        x: (B, *), over
            two lines.
        t: A number.
        **options: As follows.
        steps: How many.
    """


def bare(x): ...


def missing(x, t):
    """x_t.

    Args:
        x: (B, *).
    """


def stale(x):
    """x_t.

    Args:
        x: (B, *).
        t: A number.

    Returns:
        y: is no parameter.
    """


def repeated(noise_level):
    """Repeated.

    Args:
        noise_level: The noise level.
    """


def listed(x, t):
    """x_t.

    Args:
        x, t: Of one another.
    """


def wrapped(**options: "Unpack[Table]"):
    """x_t."""


@dataclass
class Level:
    alpha: float


class Base:
    """What is shared.

    Args:
        net: Called with x.
    """

    def __init__(self, net):
        self.net = net

    def step(self, x):
        """x_s.

        Args:
            x: (B, *).
        """

    @property
    def size(self): ...

    def _private(self, y): ...


class Child(Base):
    """One that has its base's constructor, and the text of its step.

    Attributes:
        net: As given, to be called.
        depth: It has none.
    """

    def step(self, x): ...

    def forward(self, x):
        """x_s, without x."""
'''


@pytest.fixture
def tool(monkeypatch):
    monkeypatch.syspath_prepend(TOOLS)
    return importlib.import_module("check_docstrings")


def test_planted_mistakes_are_found(tool, tmp_path, monkeypatch):
    (tmp_path / "planted_docstrings.py").write_text(PLANTED)
    monkeypatch.syspath_prepend(tmp_path)
    found = tool.check("planted_docstrings")
    assert [mistake.partition(": planted_docstrings.")[2] for mistake in found.mistakes] == [
        "Base.size: has no docstring",
        "Child: depth is named and does not exist",
        "Child.forward: parameter x is not named",
        "Level: has no docstring",
        "bare: has no docstring",
        "listed: no 'name: description' in section Args: 'x, t: Of one another.'",
        "missing: parameter t is not named",
        "repeated: the docstring only repeats the name",
        "repeated: the description of noise_level only repeats it",
        "stale: t is named and does not exist",
        "wrapped: parameter options is not named",
    ]
    assert (found.callables, found.parameters) == (14, 17)


def test_all_that_users_reach_is_read(tool):
    """Also what lies in a submodule of a submodule, and no class of another package."""
    read = tool.public_objects("scorefield")
    assert {"scorefield.Denoiser", "scorefield.samplers.DDIM", "scorefield.grids.karras"} <= set(read)
    assert {"scorefield.interop.guided_diffusion.load", "scorefield.likelihood.bits_per_dim"} <= set(read)
    assert all(thing.__module__.startswith("scorefield.") for thing in read.values())
    methods = {name for name, _, _ in tool.methods(read["scorefield.Denoiser"])}
    assert {"__call__", "forward", "given"} <= methods
    assert "to" not in methods
