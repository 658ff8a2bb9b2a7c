"""The loop that every sampler shares: a sampler is a pure step over an interval, a trajectory is a generator
of steps.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import pairwise
from typing import Any, Generic, Literal, NamedTuple, Protocol

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint
from typing_extensions import TypeVar

from scorefield.core.noise import Noise, as_noise
from scorefield.core.shapes import check_batch_of, is_true
from scorefield.models.base import AnyModel, Denoise, Model
from scorefield.models.foreign import as_gaussian, as_model
from scorefield.process.base import Process
from scorefield.runtime.checks import brief, flag, positive_int
from scorefield.runtime.contracts import refuse_misspelt, refuse_misspelt_names
from scorefield.runtime.errors import IncompatibleModel, InputError
from scorefield.samplers.grids import as_floats, as_grid

__all__ = ["AnySampler", "Grid", "Sampler", "SamplerMethods", "Step", "as_sampler", "sample", "trajectory"]

Grid = Tensor | Sequence[float]
Placing = Literal["eps", "mean"]  # of a classifier's gradient, see `Sampler.guidance`

State = TypeVar("State")
M = TypeVar("M", contravariant=True, default=Denoise)


class Step(NamedTuple):
    """What one step did.

    Attributes:
        t: The time that it came from.
        s: The time that it went to.
        x: x at time s, (B, *).
        x0: The prediction x̂0 that it was made with, (B, *); x where there are no levels.
    """

    t: float
    s: float
    x: Tensor
    x0: Tensor


class Sampler(ABC, Generic[State, M]):
    """How x_s is made from x_t: pure steps with an explicit state.

    A sampler of one's own defines `init` and `step`; everything else has a default. State is what a step
    passes to the next one, None where steps are independent; M is what it samples, models with noise levels
    (`Denoise`) if left out. An object that has these methods without this base class is taken too, see `as_sampler`.

        @dataclass(frozen=True)
        class Euler(Sampler[None]):
            guidance = "eps"

            def init(self, model, x): return None

            def step(self, model, x_t, t, s, state, noise):
                pred = model(x_t, t).guided(t)
                ...
                return x_s, pred.x0, None

    `str(sampler)` identifies stored samples, so it must name every option, as that of a frozen dataclass does.
    """

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        names = {*vars(cls), *vars(cls).get("__annotations__", ())}
        refuse_misspelt_names(names, _MEMBERS, f"sampler {cls.__name__}")

    @property
    def guidance(self) -> Placing | None:
        """How its steps place the gradient that classifier guidance leaves in a Prediction.

        "eps": they take `model(x_t, t).guided(t)`. "mean": they shift the mean of their own step. None: they would
        ignore it, so that models guided by a classifier are refused.
        """
        return None

    @property
    def between_levels(self) -> bool:
        """Whether it asks the model about times between those of the grid, which a table of levels does not have."""
        return False

    def check_model(self, model: M) -> None:
        """Refuse a model that lacks what the sampler needs, before the first step.

        Args:
            model: The model, of the library or of one's own.

        Raises:
            IncompatibleModel: By default unless the model predicts x̂0 at noise levels, at every real time where
                `Sampler.between_levels` is true.
        """
        asked = as_gaussian(model, type(self).__name__, categorical="CategoricalAncestral or CategoricalDDIM")
        if self.between_levels and asked.process.is_discrete:
            raise IncompatibleModel(
                f"{self} asks for times between the levels of this process, which is a table of them: give it "
                "sf.samplers.between_levels(model), whose process is sf.process.Interpolated, or use a sampler that keeps to the levels, "
                "such as DPMSolver2M or Heun without churn"
            )

    def calls(self, grid: Grid) -> int:
        """How many network calls it makes on this grid, at most; by default one a step.

        Args:
            grid: The times, from the first to the last.

        Raises:
            InputError: Where it cannot walk the grid: by default unless it strictly descends.
        """
        times = as_floats(grid)
        if any(s >= t for t, s in pairwise(times)):
            raise InputError(
                f"{type(self).__name__} goes from noise to data: its grid must strictly descend, got {brief(times)} "
                "(encode with DDIM, Euler or Heun)"
            )
        return len(times) - 1

    def calls_on(self, process: Process | None, grid: Grid) -> int:
        """How many network calls it makes on this grid of this process, exactly; by default `calls(grid)`.

        Args:
            process: That of the model; None for a score without noise levels.
            grid: As in `calls`.
        """
        return self.calls(grid)

    @abstractmethod
    def init(self, model: M, x: Tensor) -> State:
        """The state before the first step.

        Args:
            model: The model, which `check_model` has accepted.
            x: The first x, (B, *).

        Raises:
            InputError: Where x does not fit the sampler.
        """

    def plan(self, model: M, times: Sequence[float], state: State) -> State:
        """The state before the first step of this grid, for samplers whose steps need to know all of it.

        Args:
            model: The model, which `check_model` has accepted.
            times: The grid, as Python numbers.
            state: What `init` gave; returned as it is by default.

        Raises:
            InputError: Where the sampler's options do not fit the grid.
        """
        return state

    @abstractmethod
    def step(
        self, model: M, x_t: Tensor, t: float, s: float, state: State, noise: Noise
    ) -> tuple[Tensor, Tensor, State]:
        """One step, from t to s. It changes none of its arguments and records no gradients.

        Args:
            model: The model; `model.process.level(t)` is its α and σ.
            x_t: x at time t, (B, *).
            t: The time that it comes from, 0 ≤ t ≤ T.
            s: The time that it goes to; s < t in sampling, s > t in encoding.
            state: What `init` or the step before has left.
            noise: Where all draws of this step come from: `noise.normal_like(x_t)`.

        Returns:
            x_s (B, *), the x̂0 (B, *) behind it (x_s where there are no levels), and the next state.
        """


class SamplerMethods(Protocol):
    """A sampler of one's own without the base class: the methods that it must have."""

    def init(self, model: Any, x: Tensor) -> Any: ...

    def step(
        self, model: Any, x_t: Tensor, t: float, s: float, state: Any, noise: Noise
    ) -> tuple[Tensor, Tensor, Any]: ...


AnySampler = Sampler[Any, Any] | SamplerMethods

_MOST_AT_ONCE = 10**8
_OPTIONAL = ("guidance", "between_levels", "check_model", "calls", "calls_on", "plan")
_MEMBERS = ("init", "step", *_OPTIONAL)


def as_sampler(thing: AnySampler) -> Sampler[Any, Any]:
    """A `Sampler` itself, or a sampler of one's own behind its members.

    This is the only place that looks at the attributes of a foreign sampler by name. It needs `init` and `step`; the
    other members of `Sampler` are used where it has them. `str` of the result is that of the object.

    Args:
        thing: The sampler.

    Raises:
        IncompatibleModel: For what is no sampler, and for a misspelt optional member.
    """
    if isinstance(thing, Sampler):
        refuse_misspelt_names(getattr(thing, "__dict__", ()), _MEMBERS, f"sampler {type(thing).__name__}")
        return thing
    if isinstance(thing, type):
        raise IncompatibleModel(f"{thing.__name__} is a class: give a sampler, such as {thing.__name__}()")
    refuse_misspelt(thing, _MEMBERS, "sampler")
    if not callable(getattr(thing, "init", None)) or not callable(getattr(thing, "step", None)):
        raise IncompatibleModel(
            f"{brief(thing)} is not a sampler: it needs init(model, x) and step(model, x_t, t, s, state, noise), see "
            "sf.samplers.Sampler"
        )
    return _Foreign(thing)


class _Foreign(Sampler[Any, Any]):
    """A sampler of one's own: what it does not say has the default."""

    def __init__(self, thing: SamplerMethods) -> None:
        self.thing = thing
        self._optional = {name: getattr(thing, name) for name in _OPTIONAL if hasattr(thing, name)}

    def __repr__(self) -> str:
        return repr(self.thing)

    def __str__(self) -> str:
        return str(self.thing)

    @property
    def name(self) -> str:
        return type(self.thing).__name__

    @property
    def guidance(self) -> Placing | None:
        return self._optional.get("guidance")

    @property
    def between_levels(self) -> bool:
        return bool(self._optional.get("between_levels", False))

    def check_model(self, model: Any) -> None:
        if "check_model" in self._optional:
            self._optional["check_model"](model)

    def calls(self, grid: Grid) -> int:
        return int(self._optional["calls"](grid)) if "calls" in self._optional else super().calls(grid)

    def calls_on(self, process: Process | None, grid: Grid) -> int:
        if process is None or "calls_on" not in self._optional:
            return self.calls(grid)
        return int(self._optional["calls_on"](process, grid))

    def init(self, model: Any, x: Tensor) -> Any:
        return self.thing.init(model, x)

    def plan(self, model: Any, times: Sequence[float], state: Any) -> Any:
        return self._optional["plan"](model, times, state) if "plan" in self._optional else state

    def step(
        self, model: Any, x_t: Tensor, t: float, s: float, state: Any, noise: Noise
    ) -> tuple[Tensor, Tensor, Any]:
        return self.thing.step(model, x_t, t, s, state, noise)


def trajectory(
    model: AnyModel,
    sampler: AnySampler,
    grid: Grid,
    x: Tensor,
    noise: Noise | None = None,
) -> Iterator[Step]:
    """Walk x along the grid, yielding every step; the i-th step draws from noise.at(i).

    Args:
        model: A model of the library, or of one's own (`sf.Denoise`).
        sampler: A sampler of the library, or of one's own (`Sampler`).
        grid: Times, or `grids.steps(n)` for a score without noise levels.
        x: (B, *) at the grid's first time, integers where the model is of categories.
        noise: Where the draws come from. Default: a fresh seed.

    Raises:
        InputError: For x, a grid or noise that do not fit, before the first step; before the last one is yielded where x
            is not finite any more, with the step that it was lost at.
        IncompatibleModel: For a model that the sampler cannot sample, before the first step, and for a sampler of one's
            own whose step returns something else than it must.
    """
    return _begin(model, sampler, grid, x, noise, grad=False)


def sample(
    model: AnyModel,
    sampler: AnySampler,
    grid: Grid,
    n: int | None = None,
    noise: Noise | None = None,
    *,
    x_T: Tensor | None = None,
    grad: bool = False,
) -> Tensor:
    """Samples of a model, (n, *) in the model's data range: the last state of the trajectory.

    Run the model in evaluation mode: dropout that is left on stays on.

    Args:
        model: As in `trajectory`.
        sampler: As in `trajectory`.
        grid: As in `trajectory`.
        n: How many. Default: as many as x_T holds.
        noise: Where the draws come from. Default: a fresh seed.
        x_T: Where sampling starts, (B, *). Default: n draws of the process's prior at step 0 of `noise`, in float32, or in
            float64 for a model whose parameters are.
        grad: Whether the result has gradients with respect to x_T, the model's parameters and all else that it was
            computed with. Each step is checkpointed: only its x and state are kept, and it is computed again in the backward
            pass, with the same draws, so that memory grows by one x a step and not by the network's activations.

    Returns:
        (n, *), integers where the model is of categories.

    Raises:
        InputError: As `trajectory`, also for a result that is not finite, and where n and x_T disagree or both are missing.
        IncompatibleModel: As `trajectory`, and with `grad` for categories, for guidance by a classifier and for a score
            without noise levels.
    """
    noise = as_noise(noise)
    flag("grad", grad)
    if n is not None and (not isinstance(n, int) or isinstance(n, bool)):
        raise InputError(f"n is a number of samples, got {brief(n)}: give a start as x_T=…")
    if x_T is None:
        x_T = _start(as_model(model), n, noise)
    elif not isinstance(x_T, Tensor) or x_T.ndim < 1:
        raise InputError(
            f"x_T must be a tensor (B, *), got {brief(x_T)}: convert an array by torch.from_numpy"
        )
    elif n is not None and n != x_T.shape[0]:
        raise InputError(
            f"n = {brief(n)} disagrees with the {x_T.shape[0]} examples of x_T: give one of them"
        )
    x = x_T
    for step in _begin(model, sampler, grid, x, noise, grad):
        x = step.x
    return x


def _begin(
    model: AnyModel, sampler: AnySampler, grid: Grid, x: Tensor, noise: Noise | None, grad: bool
) -> Iterator[Step]:
    """The steps of `trajectory`; with `grad` they record gradients."""
    asked, walker, noise = as_model(model), as_sampler(sampler), as_noise(noise)
    asked.refuse_missing()
    if asked.process is None:
        check_batch_of("x", x)
    else:
        asked.process.check_states(x)
    if wrong := _not_finite(x):
        raise InputError(
            f"{wrong} of {len(x)} examples of the x that sampling starts from hold NaN or infinite values"
        )
    walker.check_model(model)
    state = walker.init(model, x)
    times = as_grid(asked.process, grid)
    walker.calls(times)
    _check_guidance(walker, asked, times)
    state = walker.plan(model, times, state)
    if grad:
        _check_differentiable(asked, x)
    return _walk(model, walker, times, x, state, noise, grad)


def _check_differentiable(model: Model, x: Tensor) -> None:
    """IncompatibleModel where sampling is not differentiable, or where a part of the gradient would be missing."""
    if not x.is_floating_point():
        raise IncompatibleModel("categories have no gradient: sample this model with grad=False")
    if model.grad_at is not None:
        raise IncompatibleModel(
            "a classifier's gradient is not differentiated a second time, so a gradient through its guidance would lack a "
            "part: sample with grad=False, or guide without a classifier"
        )
    if model.process is None:
        raise IncompatibleModel(
            "gradients through sampling need a model with noise levels: sample a score without them with grad=False"
        )


def _check_guidance(sampler: Sampler[Any, Any], model: Model, times: Sequence[float]) -> None:
    """IncompatibleModel where the guidance around this model would be ignored, or has no meaning on this
    grid.
    """
    if not model.guided:
        return
    if any(s > t for t, s in pairwise(times)):
        raise IncompatibleModel("encoding is defined without guidance: encode and decode the unguided model")
    at, places = model.grad_at, sampler.guidance
    name = sampler.name if isinstance(sampler, _Foreign) else type(sampler).__name__
    if at is not None and places is None:
        raise IncompatibleModel(
            f"{name} does not declare where it applies a classifier's gradient, and would ignore it: let its steps use "
            'model(x_t, t).guided(t) and give it the attribute guidance = "eps", or use another sampler'
        )
    if at == "mean" and places != "mean":
        raise IncompatibleModel(
            f'{name} shifts ε̂ by the gradient at x_t, and has no mean at which to take it: guide with at="x_t", or sample with '
            "Ancestral"
        )


def _walk(
    model: object,
    sampler: Sampler[Any, Any],
    times: Sequence[float],
    x: Tensor,
    state: Any,
    noise: Noise,
    grad: bool = False,
) -> Iterator[Step]:
    # One number a step, left on the device: the host looks at them at the end, and only where x is not finite.
    sums: list[Tensor] = []
    step = partial(_checkpointed, sampler) if grad else sampler.step
    for i, (t, s) in enumerate(pairwise(times), start=1):
        with torch.set_grad_enabled(grad):
            made = step(model, x, t, s, state, noise.at(i))
            x, x0, state = _checked_step(made, x, sampler)
            if x.is_floating_point():
                sums.append(x.detach().sum(dtype=torch.promote_types(x.dtype, torch.float32)))
            if i == len(times) - 1 and _not_finite(x):
                raise _lost(sums, times)
        yield Step(t, s, x, x0)


def _checkpointed(
    sampler: Sampler[Any, Any], model: object, x: Tensor, t: float, s: float, state: Any, noise: Noise
) -> object:
    """A step that keeps none of its intermediate results, and is computed again, with the same draws, for its gradient."""
    tape = _Tape(noise)

    def step(x_t: Tensor) -> object:
        return sampler.step(model, x_t, t, s, state, tape.rewound())

    return checkpoint(step, x, use_reentrant=False)


class _Tape:
    """The draws of a step, which are made once and are the same ones each time that it is rewound."""

    def __init__(self, noise: Noise) -> None:
        self._noise, self._drawn, self._next = noise, list[Tensor](), 0

    def rewound(self) -> _Tape:
        self._next = 0
        return self

    def at(self, step: int) -> _Tape:
        return self

    def normal(self, shape: Sequence[int]) -> Tensor:
        return self._draw(lambda: self._noise.normal(shape))

    def uniform(self, shape: Sequence[int]) -> Tensor:
        return self._draw(lambda: self._noise.uniform(shape))

    def normal_like(self, x: Tensor) -> Tensor:
        return self._draw(lambda: self._noise.normal_like(x))

    def _draw(self, make: Callable[[], Tensor]) -> Tensor:
        if self._next == len(self._drawn):
            self._drawn.append(make())
        self._next += 1
        return self._drawn[self._next - 1]


def _not_finite(x: Tensor) -> int:
    """How many examples hold NaN or infinite values; 0 where that cannot be read, as inside torch.func.vmap."""
    if not x.is_floating_point() or not is_true((~x.isfinite()).any()):
        return 0
    return int((~x.isfinite()).reshape(len(x), -1).any(dim=1).sum())


def _checked_step(made: object, x: Tensor, sampler: Sampler[Any, Any]) -> tuple[Tensor, Tensor, Any]:
    """What a step has made of x. IncompatibleModel where it is not what a step must return."""
    if isinstance(made, tuple | list) and len(made) == 3:
        x_s, x0, state = made
        if isinstance(x_s, Tensor) and isinstance(x0, Tensor) and x_s.shape == x.shape:
            return x_s, x0, state
    name = sampler.name if isinstance(sampler, _Foreign) else type(sampler).__name__
    several = made if isinstance(made, tuple | list) else ()
    parts = [f"shape {tuple(one.shape)}" if isinstance(one, Tensor) else brief(one) for one in several]
    got = f"{len(parts)} values ({', '.join(parts)})" if parts else brief(made)
    raise IncompatibleModel(
        f"a step of {name} must return (x_s, x̂0, state), x_s of the shape of x_t, {tuple(x.shape)}; it returned {got}"
    )


def _lost(sums: Sequence[Tensor], times: Sequence[float]) -> InputError:
    """The error of a walk that does not end in finite numbers, with the first step whose result has none."""
    wrong = (~torch.stack(list(sums)).isfinite()).nonzero()
    i = int(wrong[0]) if len(wrong) else len(sums) - 1
    return InputError(
        f"NaN or infinite values at sampling step {i + 1} of {len(sums)}, from t = {times[i]:g} to "
        f"{times[i + 1]:g}: either the network's output is not finite (has training diverged?), or the "
        "sampler's step is too large"
    )


def _start(model: Model, n: int | None, noise: Noise) -> Tensor:
    if n is None or n < 1:
        raise InputError(f"give the number of samples n ≥ 1, or x_T to start from; got n = {brief(n)}")
    positive_int("n, the number of samples at once,", n, at_most=_MOST_AT_ONCE)
    if model.process is None:
        raise IncompatibleModel(
            f"{model.kind} has a score without noise levels, so it has no prior to start from: sample it with "
            "Langevin from a given x_T"
        )
    if model.data is None:
        raise InputError(
            "the shape of an example is not known: build the model with data=sf.DataSpec(shape), or give x_T"
        )
    x = model.process.prior((n, *model.data.shape), noise.at(0)).to(model.device)
    return x.double() if model.dtype == torch.float64 and x.is_floating_point() else x
