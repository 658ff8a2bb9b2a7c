"""Small models that learn points of the plane while the page watches, and how far their scores are from the exact one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from scorefield.core.noise import Noise, NoiseSource
from scorefield.core.prediction import Level
from scorefield.data import tensor
from scorefield.models.denoiser import Denoiser
from scorefield.models.score_model import ScoreModel
from scorefield.nets import MLP
from scorefield.objectives import Loss, Objective, ScoreMatching, Simple, explicit_score_matching
from scorefield.oracle import GaussianMixture, MixtureDenoiser
from scorefield.process import DiscreteProcess, cosine
from scorefield.studio.plane_sources import PlaneSource
from scorefield.training import Trainer, train

__all__ = [
    "BATCH",
    "LEVELS",
    "METHODS",
    "OBJECTIVE_STEPS",
    "REPORTED",
    "SIGMA",
    "STEPS",
    "Learned",
    "PlaneModel",
    "Progress",
    "difference",
    "exact_model",
    "learn",
    "learn_scores",
    "plane_process",
    "smoothed",
]

PlaneModel = Denoiser | ScoreModel | MixtureDenoiser | GaussianMixture

LEVELS = 100
STEPS, OBJECTIVE_STEPS = 1500, 400
REPORTED = (5, 20, 50, 80)  # levels at which the difference is followed while a model learns
_EVERY, _FIRST_EVERY = 50, 10
_DRAWS = 2000
BATCH = 256
SIGMA = 0.2  # of the noise that the scores without levels are learned under

METHODS: Mapping[str, str] = {
    "explicit": "½‖s − ∇ ln p‖²",
    "implicit": "tr ∇s + ½‖s‖²",
    "sliced-vr": "vᵀ∇s v + ½‖s‖²",
    "denoising": "½‖s(x + σε) + ε/σ‖²",
}


@dataclass
class Learned:
    """What a training has learned so far.

    Attributes:
        source: The points.
        models: Averaged weights in evaluation mode, by name; replaced as training goes on.
    """

    source: PlaneSource
    models: dict[str, Denoiser | ScoreModel]


@dataclass(frozen=True)
class Progress:
    """Where a training is.

    Attributes:
        step: How many steps are done.
        losses: The mean loss since the last report, by model.
        differences: By model; {level: difference} at the REPORTED levels, or {0: difference} of a score without levels.
            Empty where the exact score is not known.
    """

    step: int
    losses: Mapping[str, float]
    differences: Mapping[str, Mapping[int, float]]


def plane_process() -> DiscreteProcess:
    """The process of all models of the panel, cosine(100)."""
    return cosine(LEVELS)


def exact_model(source: PlaneSource) -> MixtureDenoiser:
    """The exact Denoise of a mixture. InputError where the source is none."""
    return source.exact().denoiser(plane_process())


def smoothed(source: PlaneSource) -> GaussianMixture:
    """The density that `learn_scores` learns the score of: that of x_0 + σε."""
    return source.exact().at(_level(SIGMA))


def _go_on() -> None:
    """Before each step: nothing."""


def learn(
    source: PlaneSource, learned: Learned, steps: int = STEPS, before_step: Callable[[], None] = _go_on
) -> Iterator[Progress]:
    """Train a Denoiser on a source; its averaged weights are in `learned.models["learned"]` after each report.

    Args:
        source: The points.
        learned: Receives the model.
        steps: Of 256 examples each.
        before_step: Called before each step; what it raises ends the training.

    Yields:
        `Progress` after the first 10 steps and after every 50.
    """
    data = tensor(source.points)
    model = Denoiser(
        _network(layers=4),
        plane_process(),
        parametrization="edm",
        noise_input="log_sigma",
        data=data.spec,
        sigma_data=float(source.points.std()),
    )
    trainer = _trainer(Simple(model), source.points, steps)
    yield from _followed({"learned": trainer}, source, learned, steps, before_step)


def learn_scores(
    source: PlaneSource,
    learned: Learned,
    steps: int = OBJECTIVE_STEPS,
    before_step: Callable[[], None] = _go_on,
) -> Iterator[Progress]:
    """Train the same small network by each of METHODS, side by side, on x_0 + σε: their minimiser is the same.

    Args:
        source: A mixture, whose exact score the explicit loss needs.
        learned: Receives the models, by method.
        steps: Of 256 examples each.
        before_step: Called before each step; what it raises ends the training.

    Yields:
        `Progress`, as `learn`.

    Raises:
        InputError: For a source that is no mixture.
    """
    target, spec = smoothed(source), tensor(source.points).spec
    trainers = {}
    for method in METHODS:
        model = ScoreModel(_network(layers=2, noise_levels=False), spec)
        if method == "explicit":
            objective: Objective = _Explicit(model, target)
        else:
            objective = ScoreMatching(model, method, sigma=SIGMA)  # type: ignore[arg-type]
        trainers[method] = _trainer(objective, source.points, steps)
    yield from _followed(trainers, source, learned, steps, before_step)


class _Explicit(Objective):
    """½‖s(x) − ∇ ln p(x)‖² at x = x_0 + σε, with the exact score of its density."""

    trains = ScoreModel
    model: ScoreModel

    def __init__(self, model: ScoreModel, target: GaussianMixture) -> None:
        super().__init__()
        self.check_model(model)
        self.model, self._target = model, target

    def forward(self, x0: Tensor, y: Tensor | None, noise: Noise, **arrays: Tensor) -> Loss:
        x = x0 + SIGMA * noise.normal_like(x0)
        return Loss(explicit_score_matching(self.model.score, x, self._target.score(x)), None, {})


def _network(layers: int, noise_levels: bool = True) -> MLP:
    """A network whose weights are always the same, so that a training can be repeated."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return MLP(dim=2, hidden=128, layers=layers, noise_levels=noise_levels)


def _trainer(objective: Objective, points: Tensor, steps: int) -> Trainer:
    return train(
        objective,
        tensor(points),
        steps=steps,
        batch_size=BATCH,
        lr=2e-3,
        ema=0.995,
        warmup=50,
        device="cpu",
        precision="fp32",
    )


def _followed(
    trainers: Mapping[str, Trainer],
    source: PlaneSource,
    learned: Learned,
    steps: int,
    before_step: Callable[[], None],
) -> Iterator[Progress]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # steps this small lose more by waiting for threads than they gain
    losses: dict[str, list[float]] = {name: [] for name in trainers}
    try:
        draws = _draws(source, with_levels="learned" in trainers)
        for step in range(1, steps + 1):
            before_step()
            for name, trainer in trainers.items():
                losses[name].append(next(trainer).loss)
            if step % _EVERY and step not in (_FIRST_EVERY, steps):
                continue
            learned.models = {name: trainer.ema_model() for name, trainer in trainers.items()}
            means = {name: sum(found) / len(found) for name, found in losses.items()}
            found = {
                name: {t: _relative(model, x, exact, t) for t, (x, exact) in draws.items()}
                for name, model in learned.models.items()
            }
            yield Progress(step, means, found)
            losses = {name: [] for name in trainers}
    finally:
        torch.set_num_threads(threads)
        for trainer in trainers.values():
            trainer.close()


def _draws(source: PlaneSource, with_levels: bool) -> dict[int, tuple[Tensor, Tensor]]:
    """Level -> draws of p_t and the exact score there; 0 for the density of x_0 + σε. Empty where it is not known."""
    if source.mixture is None:
        return {}
    if not with_levels:
        return {0: _drawn_with_score(smoothed(source))}
    process = plane_process()
    return {t: _drawn_with_score(source.mixture.at(process.level(t))) for t in REPORTED}


def _drawn_with_score(density: GaussianMixture) -> tuple[Tensor, Tensor]:
    x = density.sample(_DRAWS, NoiseSource(1)).float()
    return x, density.score(x)


def difference(model: PlaneModel, source: PlaneSource, t: int) -> float:
    """√(E‖s − ∇ ln p_t‖² / E‖∇ ln p_t‖²) over 2,000 draws of p_t.

    Args:
        model: A learned model; without levels, it is compared with the score of x_0 + σε.
        source: A mixture.
        t: The level; of no meaning for a model without levels.

    Raises:
        InputError: For a source that is no mixture.
    """
    if isinstance(model, ScoreModel):
        return _relative(model, *_drawn_with_score(smoothed(source)), 0)
    level = plane_process().level(t)
    return _relative(model, *_drawn_with_score(source.exact().at(level)), t)


def _relative(model: PlaneModel, x: Tensor, exact: Tensor, t: int) -> float:
    with torch.no_grad():
        found = model.score(x, t or None)
    return float(((found - exact).square().sum() / exact.square().sum()).sqrt())


def _level(sigma: float) -> Level:
    return Level(torch.ones((), dtype=torch.float64), torch.tensor(sigma, dtype=torch.float64))
