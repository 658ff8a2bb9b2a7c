"""What a run says of itself in config.toml: everything that rebuilds its model without the data.

What cannot be rebuilt from its description is refused before training, not when the run is to be loaded.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from typing import NoReturn

import tomli_w
import torch
from torch import nn

from scorefield.data.base import Source
from scorefield.data.dataset import Dataset
from scorefield.models.base import GaussianModel
from scorefield.models.network_model import ModelBase
from scorefield.objectives.base import Objective
from scorefield.process.base import GaussianProcess, Process
from scorefield.runtime.description import Unwritable, describe
from scorefield.runtime.errors import InputError
from scorefield.runtime.own_code import is_own, loaded_class
from scorefield.runtime.parsing import build
from scorefield.runtime.registry import NETS, PROCESSES
from scorefield.training.training_options import TrainingOptions

__all__ = ["describe_run"]

_SAMPLING_STEPS = 50  # of DDIM, whose images differ little from those of all 1,000 [DDIM Table 1]
_TIMES = 7  # at which the levels of a rebuilt process are compared


def describe_run(
    objective: Objective,
    data: Source,
    arrays: Sequence[str],
    options: TrainingOptions,
    further: Mapping[str, object],
) -> dict[str, object]:
    """The tables of config.toml.

    Args:
        objective: What is trained.
        data: What it is trained on.
        arrays: Names of the further arrays that it is trained with.
        options: How it is trained.
        further: Tables that are added; an object in them, such as a sampler, is described.
    Raises:
        InputError: Where a run could not be loaded again, with what to do about it.
    """
    model = objective.model
    if not isinstance(model, ModelBase):
        raise InputError(
            f"a run cannot hold a {type(model).__name__}: put your network into sf.Denoiser or sf.ScoreModel, or train "
            "without `run`"
        )
    if not type(model).__module__.startswith("scorefield."):
        raise InputError(
            f"a run is loaded as a {_base_of(model)}, without what your {type(model).__name__} adds to it: put what differs into "
            "the network or the objective, or train without `run`"
        )
    tables: dict[str, object] = (
        {} if model.process is None else {"process": _described("process", model.process)}
    )
    return {
        **tables,
        "net": _described("net", model.net),
        "model": model.config,
        "objective": _described("objective", objective),
        "training": options.model_dump(),
        "trained_on": {**_trained_on(data, arrays), "family": model.family},
        **_data(data),
        **_sampling(model),
        **{name: _table(name, value) for name, value in further.items()},
    }


def _sampling(model: ModelBase) -> dict[str, object]:
    """How the command samples the run unless it is told otherwise: not in all steps of a long process."""
    process = model.process
    if not isinstance(process, GaussianProcess) or not isinstance(model, GaussianModel):
        return {}
    few = process.is_discrete and process.T <= _SAMPLING_STEPS
    return {} if few else {"sampling": {"steps": _SAMPLING_STEPS}}


def _data(data: Source) -> dict[str, object]:
    """The table [data], by which an evaluation reads the data and splits them again, where they say how."""
    if not isinstance(data, Dataset) or not data.read_as:
        return {}
    in_range = {"range": list(data.spec.range)} if data.spec.bins is not None else {}
    return {"data": {**data.read_as, "holdout": data.read_as.get("holdout", 0.0), **in_range}}


def _trained_on(data: Source, arrays: Sequence[str]) -> dict[str, object]:
    spec = data.spec
    return {
        "source": data.source,
        "fingerprint": data.fingerprint(arrays),
        **({"arrays": list(arrays)} if arrays else {}),
        **({} if data.examples is None else {"examples": data.examples}),  # a stream is not counted
        "shape": list(spec.shape),
        "range": list(spec.range),
        "classes": list(spec.classes),
        **({"counts": list(data.counts)} if data.counts else {}),
        **({} if spec.bins is None else {"bins": spec.bins}),
    }


def _table(where: str, value: object) -> object:
    """A table of plain values as it is, with the objects in it described."""
    if isinstance(value, Mapping):
        return {name: _table(f"{where}.{name}", item) for name, item in value.items()}
    if value is None or isinstance(value, bool | int | float | str | list | tuple):
        return value
    return _described(where, value)


def _described(where: str, thing: object) -> dict[str, object]:
    """What an object says of itself, if that rebuilds it."""
    said = describe(thing)
    kind = said["kind"]
    if kind == "custom":
        return said
    for name, value in said.items():
        if isinstance(value, Unwritable):
            _refuse(where, thing, f"its argument {name} is a {value.type}, which config.toml cannot hold")
    if any(_of_library(nested) for nested in _own_kinds(said)):
        raise InputError(
            f"a run could not rebuild {where}, a {type(thing).__name__}: no configuration file can name this class. Make the "
            "object by a function of sf.process, such as from_betas or from_sigmas"
        )
    if is_own(kind):
        _check_own(where, thing, said)
    elif not list(_own_kinds(said)):
        _check_named(where, thing, said)
    return said


def _own_kinds(said: Mapping[str, object]) -> Iterator[str]:
    """The paths "module:Name" in a description."""
    for name, value in said.items():
        if name == "kind" and isinstance(value, str) and is_own(value):
            yield value
        elif isinstance(value, Mapping):
            yield from _own_kinds(value)


def _of_library(kind: str) -> bool:
    return kind.startswith("scorefield.")


def _base_of(model: ModelBase) -> str:
    return next(base.__name__ for base in type(model).__mro__ if base.__module__.startswith("scorefield."))


def _check_named(where: str, thing: object, said: Mapping[str, object]) -> None:
    """InputError unless the description of a process or network of the library makes the same object again, which one
    that was changed after it was made does not.
    """
    if isinstance(thing, Objective) or not isinstance(thing, Process | nn.Module):
        return
    # A network is made where nothing is allocated.
    with (
        torch.random.fork_rng(devices=[]),
        torch.device("meta") if isinstance(thing, nn.Module) else nullcontext(),
    ):
        try:
            twin = build(NETS if isinstance(thing, nn.Module) else PROCESSES, _through_toml(said), where)
        except InputError as error:
            raise InputError(
                f"a run could not rebuild {where}: its description does not make it again ({error})"
            ) from None
    if difference := _difference(thing, twin):
        raise InputError(
            f"a run could not rebuild {where}, which was changed after it was made ({difference}): make a class of your own of "
            "it, at the top level of a module, whose constructor makes it as it is"
        )


def _check_own(where: str, thing: object, said: Mapping[str, object]) -> None:
    """InputError unless the class is found by its name, and its description makes the same object again."""
    found = loaded_class(str(said["kind"]))
    if found is None or not isinstance(thing, found):
        _refuse(
            where,
            thing,
            "its class is not at the top level of a module or script, so a run that is loaded could not find it",
        )
    if isinstance(thing, Objective):
        return  # to make it again would need a second model
    arguments = {name: value for name, value in _through_toml(said).items() if name != "kind"}
    try:
        with torch.random.fork_rng(devices=[]):
            twin = found(**arguments)
    except Exception as error:  # whatever the user's constructor raises
        shown = ", ".join(f"{name}={value!r}" for name, value in arguments.items())
        _refuse(where, thing, f"{found.__name__}({shown}) does not make it again ({error})")
    if difference := _difference(thing, twin):
        _refuse(where, thing, f"its description makes another one: {difference}")


def _through_toml(said: Mapping[str, object]) -> dict[str, object]:
    return tomllib.loads(tomli_w.dumps(said))


def _difference(thing: object, twin: object) -> str:
    """What distinguishes an object from the one that its description makes; nothing where nothing does."""
    if isinstance(thing, nn.Module) and isinstance(twin, nn.Module):
        mine, its = ({name: tuple(p.shape) for name, p in net.state_dict().items()} for net in (thing, twin))
        wrong = sorted(name for name in {*mine, *its} if mine.get(name) != its.get(name))
        return f"{wrong[0]} has shape {its.get(wrong[0])} in it, not {mine.get(wrong[0])}" if wrong else ""
    if isinstance(thing, Process) and isinstance(twin, Process):
        return _process_difference(thing, twin)
    return "" if describe(thing) == describe(twin) else f"{describe(twin)}, not {describe(thing)}"


def _process_difference(thing: Process, twin: Process) -> str:
    if thing.T != twin.T:
        return f"T is {twin.T} in it, not {thing.T}"
    if not isinstance(thing, GaussianProcess) or not isinstance(twin, GaussianProcess):
        return ""
    times = torch.linspace(thing.t_min, thing.T, _TIMES, dtype=torch.float64)
    times = times.round() if thing.is_discrete else times
    same = all(torch.equal(a, b) for a, b in zip(thing.level(times), twin.level(times), strict=True))
    if not same:
        return "its levels differ"
    mine, its = ((one.prior_mean, one.prior_std, one.t_min) for one in (thing, twin))
    return "" if mine == its else f"its prior_mean, prior_std and t_min are {its}, not {mine}"


def _refuse(where: str, thing: object, reason: str) -> NoReturn:
    name = type(thing).__name__
    raise InputError(
        f"a run could not rebuild {where}, your {name}: {reason}. Make {name} a class at the top level of a module, with "
        f"numbers, texts and lists as arguments, that is a dataclass or says its arguments in `config`; or give it "
        f'config = {{"kind": "custom"}} and pass it yourself when the run is loaded'
    )
