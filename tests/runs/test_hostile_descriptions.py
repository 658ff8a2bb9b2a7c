"""Descriptions that others have made, or that are damaged: every one is refused in one line that names the file, in
bounded time and memory.
"""

import inspect
import re
import resource
import shutil
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import tomli_w

import scorefield as sf
from scorefield.planning.facts import info_facts
from scorefield.runs.recipe import read_recipe, with_overrides
from scorefield.runtime.bounds import LEVELS, check_bounds
from scorefield.runtime.errors import InputError
from scorefield.runtime.parsing import Options, build, keyword_options, parse
from scorefield.runtime.registry import NETS, OBJECTIVES, PROCESSES, SAMPLERS, TIMES
from scorefield.training import TrainingOptions

OLD = Path(__file__).parent.parent / "old_runs"
MEMORY = 8 * 2**30


class Inner(Options):
    steps: int = 1


class Outer(Options):
    names: dict[str, int] = {}
    inner: Inner = Inner()


@pytest.mark.parametrize("key", ["a[b]", "\x1b[31m", "[", "list[int]"])
def test_an_unknown_option_is_named_whatever_it_holds(key: str) -> None:
    with pytest.raises(InputError, match=re.escape(f"no option table.{key}; there are names, inner")):
        parse(Outer, {key: 1}, "table")
    with pytest.raises(InputError, match=re.escape(f"no option table.inner.{key}; there are steps")):
        parse(Outer, {"inner": {key: 1}}, "table")
    with pytest.raises(InputError, match=re.escape("option table.names: ")):
        parse(Outer, {"names": {key: "word"}}, "table")


UNET: dict[str, object] = {
    "kind": "unet",
    "channels": 32,
    "channel_mult": [1, 1],
    "blocks": 1,
    "attention": [2],
    "heads": 1,
}


@pytest.fixture(autouse=True)
def _little_memory() -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, before)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    shutil.copytree(OLD / "digits", tmp_path / "run", ignore=shutil.ignore_patterns("checkpoints", "folder"))
    return tmp_path / "run"


def described(run: Path, **changes: object) -> Path:
    """The run with other values in its config.toml, by "table__name", or whole tables by "table"."""
    tables: dict[str, Any] = tomllib.loads((run / "config.toml").read_text())
    for name, value in changes.items():
        table, _, key = name.partition("__")
        if key:
            tables[table][key] = value
        else:
            tables[table] = value
    (run / "config.toml").write_text(tomli_w.dumps(tables))
    return run


def refused(run: Path) -> str:
    """What `info` and `sf.load` say of it, which begins with the file."""
    said = []
    for read in (lambda: info_facts(str(run)), lambda: sf.load(run)):
        with pytest.raises(InputError) as error:
            read()
        said.append(str(error.value))
        assert str(run / "config.toml") in said[-1]
        assert len(said[-1]) < 700
        assert "\n" not in said[-1]
    assert said[0] == said[1]
    return said[0]


# The values of a description -> what a message says.
HOSTILE: list[tuple[dict[str, object], str]] = [
    ({"net": {**UNET, "blocks": 10**9}}, "net.blocks: an integer of at most 16,777,216"),
    ({"net": {**UNET, "channel_mult": [1] * 1000}}, "1,000 levels"),
    ({"net": {**UNET, "channel_mult": [1e300]}}, "net"),
    ({"net": {**UNET, "channels": 10**30 // 10**12}}, "net.channels: an integer of at most"),
    ({"net": {**UNET, "dropout": 7}}, "dropout"),
    ({"net": {**UNET, "head_channels": 0}}, "[net]"),
    ({"net": {**UNET, "heads": 0}}, "[net]"),
    ({"net": {**UNET, "channels": -32}}, "channels"),
    ({"net": {**UNET, "blocks": "1000000000"}}, "net.blocks: an integer of at most"),
    ({"net": {**UNET, "blocks": float("nan")}}, "net.blocks"),
    ({"net": {**UNET, "dropout": float("nan")}}, "net.dropout"),
    ({"net": {"kind": "mlp", "dim": 64, "layers": 10**5}}, "more than 4,000 modules"),
    ({"net": {"kind": []}}, "net: its kind must be a word"),
    ({"net": {"kind": {"kind": "mlp"}}}, "net: its kind must be a word"),
    ({"net": {}}, "net.kind must be one of"),
    ({"objective__kind": ["simple"]}, "objective: its kind must be a word"),
    ({"sampling": {"sampler": {"kind": 3}}}, "sampling.sampler"),
    ({"sampling": {"sampler": {}}}, "sampling.sampler"),
    ({"sampling": {"steps": 10**9}}, "sampling.steps"),
    ({"sampling": {"guidance": float("nan")}}, "sampling.guidance"),
    ({"process__T": 200_000_000}, "process.T: an integer of at most 1,048,576"),
    ({"process__T": 1e30}, "process.T"),
    ({"process__T": "200000000"}, "process.T: an integer of at most"),
    ({"process__T": 2e8}, "process.T: an integer of at most"),
    ({"process__T": 0}, "T"),
    ({"process__s": float("inf")}, "process.s"),
    ({"trained_on__shape": [3, 10**9, 10**9]}, "trained_on.shape"),
    ({"trained_on__shape": [3, 2**15, 2**15]}, "268,435,456 values"),
    ({"trained_on__shape": []}, "trained_on.shape"),
    ({"trained_on__shape": [0, 8, 8]}, "trained_on.shape"),
    ({"trained_on__range": [-float("inf"), float("inf")]}, "trained_on.range"),
    ({"trained_on__range": [1.0, -1.0]}, "range"),
    ({"trained_on__bins": 10**12}, "trained_on.bins"),
    ({"trained_on__bins": -1}, "trained_on.bins"),
    ({"training__lr": float("inf")}, "training.lr"),
    ({"training__weight_decay": float("nan")}, "training.weight_decay"),
    ({"training__steps": 2**63}, "training.steps"),
    ({"model__sigma_data": 0.0}, "model.sigma_data"),
    ({"model__low_res": 10**9}, "model.low_res"),
]


@pytest.mark.parametrize(("changes", "said"), HOSTILE, ids=lambda value: str(value)[:60])
def test_a_hostile_description_is_refused(run: Path, changes: dict[str, object], said: str) -> None:
    assert said in refused(described(run, **changes))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (f"x = {'9' * 5000}", "an integer of thousands of digits"),
        ("x = " + "[" * 20_000, "nested too deeply"),
        ("x = " + "{a = " * 20_000, "nested too deeply"),
        ("[" + "a." * 20_000 + "b]", "a key of more than 100 parts (at line 1)"),
        ("[net\n", "not valid TOML"),
        ("x = 1\n" * 2, "not valid TOML"),
        ("\x00", "not valid TOML"),
        ("\udcff\udcfe", "not text in UTF-8: byte 0"),
    ],
    ids=lambda value: repr(value[:12]),
)
def test_a_description_that_no_parser_takes_is_refused(run: Path, content: str, said: str) -> None:
    (run / "config.toml").write_bytes(content.encode(errors="surrogateescape"))
    assert said in refused(run)


def test_lists_are_bounded() -> None:
    check_bounds([0] * LEVELS, "betas")
    with pytest.raises(InputError, match=r"option process\.betas: at most 1,048,576 entries"):
        check_bounds({"betas": [0] * (LEVELS + 1)}, "process")


def test_nesting_is_bounded(run: Path) -> None:
    process: dict[str, object] = {"kind": "linear", "T": 10}
    for _ in range(50):
        process = {"kind": "interpolated", "discrete": process}
    assert "nested too deeply" in refused(described(run, process=process))


@pytest.mark.parametrize("shape", [[8, 8], [64], [1, 64], [1, 8, 8, 1], [1, 4, 16]])
def test_a_shape_that_the_source_contradicts_is_refused(run: Path, shape: list[int]) -> None:
    """64 values in another shape would be points to the MLP of this run, and no images."""
    assert "trained_on.shape" in refused(described(run, trained_on__shape=shape))


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("runs/none", "the folder runs/none is not there"),
        ("empty", "the folder empty is not a run"),
        ("digit", "did you mean 'digits'"),
        ("none.toml", "there is no such file"),
        ("deep/none.toml", "there is no such file"),
    ],
)
def test_what_info_cannot_find_is_said(
    what: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=said):
        info_facts(what)


def test_a_recipe_is_bounded_like_a_run(tmp_path: Path) -> None:
    recipe = tmp_path / "mine.toml"
    recipe.write_text(f"[data]\nsource = 'digits'\n[net]\nkind = 'unet'\nx = {'9' * 5000}\n")
    with pytest.raises(InputError, match=r"mine\.toml.*thousands of digits"):
        read_recipe(str(recipe))
    recipe.write_text("[data]\nsource = 'digits'\nclasses = 100000000000\n[net]\nkind = 'unet'\n")
    with pytest.raises(InputError, match=r"mine\.toml.*data\.classes"):
        info_facts(str(recipe))
    recipe.write_text(
        "[data]\nsource = 'digits'\n[net]\nkind = 'unet'\nblocks = 1000000\n[process]\nkind = 'cosine'\n"
    )
    with pytest.raises(InputError, match=r"mine\.toml.*4,000 modules"):
        info_facts(str(recipe))


@pytest.mark.parametrize(
    "name", ["lr", "weight_decay", "clip", "ema", "beta2", "rollback_lr", "label_dropout"]
)
@pytest.mark.parametrize("value", [float("inf"), -float("inf"), float("nan"), "nan", "inf"])
def test_numbers_of_training_are_finite(name: str, value: object) -> None:
    with pytest.raises(InputError, match=name):
        parse(TrainingOptions, {name: value}, "training")


def test_true_and_false_are_no_numbers() -> None:
    for name in ("steps", "batch_size", "lr", "seed"):
        with pytest.raises(InputError, match=f"training.{name}: a number is expected, got True"):
            parse(TrainingOptions, {name: True}, "training")
    with pytest.raises(InputError, match=r"training\.steps: a number is expected, got True"):
        with_overrides(read_recipe("digits"), ["training.steps=true"])
    with pytest.raises(InputError, match=r"eta: a number is expected, got False"):
        build(SAMPLERS, {"kind": "ddim", "eta": False}, "sampling.sampler")
    assert parse(TrainingOptions, {"flip": True}, "training").flip is True


def test_what_may_be_infinite_still_may() -> None:
    table = {"kind": "heun", "churn": 1.0, "churn_max": float("inf")}
    heun = build(SAMPLERS, table, "sampling.sampler")
    assert heun.churn_max == float("inf")
    with pytest.raises(InputError, match="churn_max"):
        build(SAMPLERS, {**table, "churn_max": float("nan")}, "sampling.sampler")
    with pytest.raises(InputError, match="churn"):
        build(SAMPLERS, {**table, "churn": float("inf")}, "sampling.sampler")


def test_weights_are_compared_before_a_network_is_allocated(run: Path) -> None:
    """The network of this description has 10¹⁵ parameters; `info` counts them, and loading allocates none."""
    described(run, net={**UNET, "channels": 2**20})
    assert info_facts(str(run))["parameters"] > 10**12
    for read in (sf.load, lambda path: sf.Run(path).model("cpu")):
        with pytest.raises(InputError, match=r"model\.safetensors does not fit this run: .* missing"):
            read(run)


@pytest.mark.parametrize("kinds", [NETS, OBJECTIVES, PROCESSES, SAMPLERS, TIMES], ids=repr)
def test_an_option_of_several_types_is_refused_without_words_of_pydantic(kinds):
    said = [
        refusal_of(keyword_options(kinds[kind]), {name: wrong})
        for kind in kinds
        for name in inspect.signature(kinds[kind]).parameters
        for wrong in ({"a": 1}, "word", [{}], [[[1.5]]], -1.5)
    ]
    odd = [
        text
        for text in said
        if not re.match(r"(option [\w.]+(: | is missing)|$)", text) or "instance of" in text
    ]
    assert odd == []


def refusal_of(options, values):
    try:
        parse(options, values, "here")
    except InputError as error:
        return str(error)
    return ""
