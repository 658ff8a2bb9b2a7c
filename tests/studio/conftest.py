"""Small runs, and the page's server on them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from support import LEARNS, TinyRun

pytest.importorskip("starlette", reason="the page needs the extra studio: pip install 'scorefield[studio]'")

from studio_page import Page

from scorefield.studio.session import Studio


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory, tiny_run: TinyRun) -> Path:
    """A folder of small runs: digits (class-conditional), classifier, moons, upsampler."""
    folder = tmp_path_factory.mktemp("studio")
    for name, recipe, settings in (
        ("digits", "digits", (*LEARNS, "training.label_dropout=0.2")),
        ("classifier", "digits-classifier", LEARNS),
        ("moons", "toy-moons", ()),
        ("upsampler", "digits-upsampler", LEARNS),
    ):
        tiny_run.copy(folder / name, recipe, *settings)
    return folder


@pytest.fixture
def page(root: Path) -> Iterator[Page]:
    studio = Studio([root])
    yield Page(studio)
    studio.close()
