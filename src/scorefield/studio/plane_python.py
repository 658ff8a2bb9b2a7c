"""What the Field panel shows, as lines of Python that make the same numbers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from inspect import cleandoc

from torch import Tensor

from scorefield.oracle import GaussianMixture
from scorefield.runtime.registry import GRIDS, SAMPLERS
from scorefield.samplers import Langevin
from scorefield.samplers.base import as_sampler
from scorefield.studio.plane_learning import BATCH, OBJECTIVE_STEPS, SIGMA, STEPS, plane_process
from scorefield.studio.plane_sources import POINTS, SourceRequest, open_source
from scorefield.studio.plane_walks import EXACT, EXACT_DATA, Pane

__all__ = ["as_python"]

_NAMES = "abcd"  # of the samples of each square


def as_python(source: SourceRequest, panes: Sequence[Pane], n: int, seed: int) -> str:
    """Lines that learn the models of the squares and walk their samples; those of square A are then in `a`.

    Args:
        source: The points.
        panes: The squares.
        n: Samples in each.
        seed: Of all draws.
    """
    learned = list(
        dict.fromkeys(p.request.model for p in panes if p.request.model not in (EXACT, EXACT_DATA))
    )
    parts = [_beginning(source, bool(learned))]
    parts += [_learn() if name == "learned" else _learn_score(name) for name in learned]
    parts.append(f"noise = sf.NoiseSource({seed})")
    parts += [_walk(name, pane, n) for name, pane in zip(_NAMES, panes, strict=False)]
    return "\n\n".join(parts)


def _beginning(source: SourceRequest, learns: bool) -> str:
    """Imports, the process, and the points or their density."""
    opened = open_source(source)
    lines = ["import torch", "", "import scorefield as sf", "", f"process = {_process()}"]
    if opened.mixture is not None:
        lines.append(f"mixture = {_mixture(opened.mixture)}")
    if not learns:
        return "\n".join(lines)
    if source.kind == "toy":
        lines.append(f"points = sf.data.toy({source.name!r}, {POINTS}).batch(torch.arange({POINTS}))[0]")
    else:
        lines.append(f"points = mixture.sample({POINTS}, sf.NoiseSource(0)).float()")
    lines += [
        "data = sf.data.tensor(points)",
        "torch.set_num_threads(1)  # the last places depend on the threads",
    ]
    return "\n".join(lines)


def _process() -> str:
    return f"sf.process.cosine({plane_process().T})"


def _mixture(mixture: GaussianMixture) -> str:
    """The call that makes it. One covariance stands for all where they are the same."""
    first, count = mixture.covariances[0], len(mixture.weights)
    same = bool((mixture.covariances == first).all())
    covariances = f"{_tensor(first)}.expand({count}, 2, 2)" if same else _tensor(mixture.covariances)
    return f"sf.oracle.GaussianMixture(\n    {_tensor(mixture.means)},\n    {covariances},\n    {mixture.weights.tolist()},\n)"


def _tensor(values: Tensor) -> str:
    return f"torch.tensor({values.double().tolist()}, dtype=torch.float64)"


_TRAIN = f'batch_size={BATCH}, lr=2e-3, ema=0.995, warmup=50, device="cpu", precision="fp32"'


def _learn() -> str:
    """A model of all levels, as `plane_learning.learn` trains it."""
    return cleandoc(f"""
        torch.manual_seed(0)
        net = sf.nets.MLP(dim=2, hidden=128, layers=4)
        width = float(points.std())
        model = sf.Denoiser(
            net, process, parametrization="edm", noise_input="log_sigma", data=data.spec, sigma_data=width
        )
        trainer = sf.train(sf.objectives.Simple(model), data, steps={STEPS}, {_TRAIN})
        for step in trainer:
            pass
        learned = trainer.ema_model()
    """)


_EXPLICIT = cleandoc(f"""
    class Explicit(sf.Objective):
        trains = sf.ScoreModel

        def __init__(self, model, density):
            super().__init__()
            self.model, self.density = model, density

        def forward(self, x0, y, noise, **arrays):
            x = x0 + {SIGMA} * noise.normal_like(x0)
            return sf.Loss(sf.objectives.explicit_score_matching(self.model.score, x, self.density.score(x)), None, {{}})


    one = torch.ones((), dtype=torch.float64)
    density = mixture.at(sf.Level(one, {SIGMA} * one))  # of x_0 + σε
""")


def _learn_score(method: str) -> str:
    """A score without levels, as `plane_learning.learn_scores` trains it."""
    name = method.replace("-", "_")
    objective = (
        "Explicit(model, density)"
        if method == "explicit"
        else f"sf.objectives.ScoreMatching(model, {method!r}, sigma={SIGMA})"
    )
    lines = f"""
        torch.manual_seed(0)
        model = sf.ScoreModel(sf.nets.MLP(dim=2, hidden=128, layers=2, noise_levels=False), data.spec)
        trainer = sf.train({objective}, data, steps={OBJECTIVE_STEPS}, {_TRAIN})
        for step in trainer:
            pass
        {name} = trainer.ema_model()
    """
    return "\n\n\n".join([_EXPLICIT, cleandoc(lines)] if method == "explicit" else [cleandoc(lines)])


def _walk(name: str, pane: Pane, n: int) -> str:
    """The samples of a square."""
    request, process = pane.request, pane.process
    model = {EXACT: "mixture.denoiser(process)", EXACT_DATA: "mixture"}.get(
        request.model, request.model.replace("-", "_")
    )
    if request.guidance is not None:
        label = request.label or 0
        model = f"sf.guidance.ClassifierGuidance({model}, mixture.classifier(process), {label}, {request.guidance!r})"
    if as_sampler(pane.sampling.sampler).between_levels and process is not None:
        model = f"sf.samplers.between_levels({model})"
    reach = pane.source.reach
    start = (
        f"process.prior(({n}, 2), noise.at(0))"
        if process is not None
        else f"{reach!r} * (2 * noise.at(0).uniform(({n}, 2)) - 1)"
    )
    return f"{name} = sf.sample({model}, {_sampler(pane)}, {_grid(pane)}, x_T={start}, noise=noise)"


def _sampler(pane: Pane) -> str:
    """The call that makes it, with the step of Langevin dynamics that the library chose where none was given."""
    made, settings = pane.sampling.sampler, dict(pane.request.settings)
    if isinstance(made, Langevin):
        settings.setdefault("step", made.step_size)
    return f"sf.samplers.{SAMPLERS[pane.request.sampler].__name__}({_keywords(settings.items())})"


def _grid(pane: Pane) -> str:
    """The call that makes it."""
    request = pane.request
    if pane.process is None:
        return f"sf.grids.steps({request.steps})"
    if request.grid == "full":
        return "sf.grids.full(process)"
    if request.grid == "staircase":
        levels = request.steps // request.repeats
        return f"sf.grids.staircase(process, {request.repeats}, sf.grids.uniform(process, {levels}))"
    if request.grid in GRIDS:
        return f"sf.grids.{GRIDS[request.grid].__name__}(process, {request.steps})"
    return f"sf.grids.sections(process, {[int(count) for count in request.grid.split(',')]})"


def _keywords(items: Iterable[tuple[str, object]]) -> str:
    return ", ".join(f"{name}={value!r}" for name, value in items)
