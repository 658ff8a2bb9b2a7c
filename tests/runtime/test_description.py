"""Objects say how they were made."""

import copy
import subprocess
import sys
from dataclasses import dataclass

import pytest
import torch

import scorefield as sf
from scorefield.runtime.description import Described, Unwritable, describe, short


class Remembers(Described):
    given = ("model",)

    def __init__(self, model, a, b=2, *rest, c=None, **more):
        self.sum = a if isinstance(a, int) else 0


class Inherits(Remembers):
    def __init__(self, model, d):
        super().__init__(model, d, b=7)


@dataclass(frozen=True)
class Fields(Described):
    size: int
    factor: float = 0.5


class Own(torch.nn.Module):
    @property
    def config(self):
        return {"width": 3, "what": None}


class Custom(torch.nn.Module):
    config = {"kind": "custom", "num_classes": 4}


HERE = __name__


@pytest.mark.parametrize(
    ("thing", "expected"),
    [
        (Remembers("model", (1, 2)), {"kind": f"{HERE}:Remembers", "a": [1, 2], "b": 2}),
        (
            Remembers("model", a=1, c="x", e=None, f=True),
            {"kind": f"{HERE}:Remembers", "a": 1, "b": 2, "c": "x", "f": True},
        ),
        (Inherits(None, 5), {"kind": f"{HERE}:Inherits", "d": 5}),
        (Fields(3), {"kind": f"{HERE}:Fields", "size": 3, "factor": 0.5}),
        (Own(), {"kind": f"{HERE}:Own", "width": 3}),
        (Custom(), {"kind": "custom", "num_classes": 4}),
        (torch.nn.ReLU(), {"kind": "torch.nn.modules.activation:ReLU"}),
        (
            Remembers(None, Fields(1)),
            {"kind": f"{HERE}:Remembers", "a": {"kind": f"{HERE}:Fields", "size": 1, "factor": 0.5}, "b": 2},
        ),
        (Remembers(None, torch.tensor([0.5, 1])), {"kind": f"{HERE}:Remembers", "a": [0.5, 1.0], "b": 2}),
        (
            Remembers(None, [print]),
            {"kind": f"{HERE}:Remembers", "a": Unwritable("builtin_function_or_method"), "b": 2},
        ),
        (
            Remembers(None, 1, 2, 3),
            {"kind": f"{HERE}:Remembers", "a": 1, "b": 2, "rest": Unwritable("arguments without names")},
        ),
    ],
    ids=str,
)
def test_what_an_object_says(thing, expected):
    assert describe(thing) == expected
    assert describe(copy.deepcopy(thing)) == expected


def test_a_network_that_inherits_from_one_of_ours_is_its_own():
    class Mine(sf.nets.MLP):
        pass

    assert Mine(2, hidden=8).config["kind"].endswith("Mine")
    assert Mine(2, hidden=8).config["hidden"] == 8
    assert sf.nets.MLP(2).config["kind"] == "mlp"


def test_wrong_arguments_are_python_s_to_explain():
    with pytest.raises(TypeError, match="missing 1 required positional argument: 'a'"):
        Remembers("model")  # type: ignore[call-arg]


def test_a_repr_is_short():
    assert repr(Fields(3)) == "Fields(size=3, factor=0.5)"
    assert short({"kind": "betas", "betas": list(range(9))}) == "betas(betas=[0, 1, 2, 3, … 9 values])"


def test_what_a_script_defines_is_named_by_its_file(tmp_path):
    script = tmp_path / "my_script.py"
    script.write_text(
        "from scorefield.runtime.description import Described, describe\n"
        "class Mine(Described):\n    pass\n"
        "print(describe(Mine()))\n"
    )
    result = subprocess.run([sys.executable, script], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "{'kind': 'my_script:Mine'}"
