"""Settings of the Field panel that each show one thing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from scorefield.studio.plane_sources import SourceRequest
from scorefield.studio.plane_walks import EXACT_DATA, PaneRequest

__all__ = ["PRESETS", "Preset"]


@dataclass(frozen=True)
class Preset:
    """Settings that show one thing.

    Attributes:
        id: Its name in addresses.
        title: What it is called.
        text: What it shows.
        source: What is learned.
        panes: The fields, A, B and so on.
        trains: "levels" or "objectives" where a model is trained first.
        n: Points that are walked.
        t: The time that is shown where nothing is walked.
    """

    id: str
    title: str
    text: str
    source: SourceRequest
    panes: Sequence[PaneRequest]
    trains: str | None = None
    n: int = 400
    t: int = 0


_MODES = SourceRequest(kind="toy", name="mixture")
_CLUSTERS = SourceRequest(kind="mixture", name="two-clusters")
_CLASSES = SourceRequest(kind="mixture", name="three-classes")

PRESETS: Sequence[Preset] = (
    Preset(
        "learned",
        "Exact and learned",
        "A is the exact score of a mixture, B a network that learns it now. At high noise the two agree after a few steps; at "
        "low noise the learned field is accurate where there are data, and arbitrary elsewhere.",
        _CLUSTERS,
        (PaneRequest(), PaneRequest(model="learned")),
        trains="levels",
        t=30,
    ),
    Preset(
        "langevin",
        "Langevin in two modes",
        "The modes have the weights 0.2 and 0.8. A is Langevin dynamics with the exact score of the data: the chains start "
        "uniformly and do not cross between the modes, so that about half of them end in each. B makes the same number of updates, "
        "annealed over 20 noise levels: the shares come near the weights.",
        _MODES,
        (
            PaneRequest(model=EXACT_DATA, sampler="langevin", settings={"step": 0.1}, steps=1000),
            PaneRequest(
                sampler="langevin", settings={"step": 2e-4}, grid="staircase", repeats=50, steps=1000
            ),
        ),
    ),
    Preset(
        "step",
        "A step too large",
        "Langevin dynamics with the exact score, 300 updates each. The step is stable below four times the smallest variance of "
        "the density. In A it is small. In B it is above that: the updates overshoot, and the points are spread far "
        "wider than the data.",
        _CLUSTERS,
        (
            PaneRequest(model=EXACT_DATA, sampler="langevin", settings={"step": 0.02}, steps=300),
            PaneRequest(model=EXACT_DATA, sampler="langevin", settings={"step": 0.3}, steps=300),
        ),
    ),
    Preset(
        "solvers",
        "Five network calls",
        "DDIM and DPM-Solver++ from the same noise, in 5 steps of the same grid. DPM-Solver++ extrapolates from the last two "
        "predictions and ends nearer to where the probability flow goes.",
        _CLUSTERS,
        (PaneRequest(sampler="ddim", steps=5), PaneRequest(sampler="dpm-solver", steps=5)),
    ),
    Preset(
        "guidance",
        "Guidance that overshoots",
        "Guidance towards class 2 by the exact classifier. The shading is p_t(x)·p_t(y|x)^s. At scale s = 1 the samples follow "
        "p(x|y). At s = 8 they end beyond the class, where the classifier is surest and data are rare.",
        _CLASSES,
        (
            PaneRequest(sampler="ddim", steps=50, label=2, guidance=1.0),
            PaneRequest(sampler="ddim", steps=50, label=2, guidance=8.0),
        ),
    ),
    Preset(
        "objectives",
        "Four losses, one field",
        "Four networks learn the score of the data with noise σ = 0.2 by explicit, implicit, sliced and denoising score matching. "
        "Only the first loss sees the exact score; all have the same minimiser.",
        _CLUSTERS,
        tuple(
            PaneRequest(model=method, sampler="langevin", settings={"step": 0.02}, steps=300)
            for method in ("explicit", "implicit", "sliced-vr", "denoising")
        ),
        trains="objectives",
    ),
)
