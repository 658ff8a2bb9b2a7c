"""Checkpoints of others as files: read whatever they are called, refused without running anything, explained
when damaged.
"""

import gzip
import os
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from scorefield.interop.state_dicts import read_weights
from scorefield.runtime.errors import InputError

STATE = {"a.weight": torch.arange(12.0).reshape(3, 4), "a.bias": torch.ones(3)}


class Canary:
    """Runs a command when it is unpickled."""

    def __init__(self, trace: Path):
        self.trace = trace

    def __reduce__(self):
        return os.system, (f"touch {self.trace}",)


class Evaluated(Canary):
    def __reduce__(self):
        return eval, (f"open({str(self.trace)!r}, 'w')",)


def torch_file(path: Path, content: object, legacy: bool = False) -> Path:
    torch.save(content, path, _use_new_zipfile_serialization=not legacy)
    return path


def equal(tensors: dict, expected: dict) -> bool:
    return tensors.keys() == expected.keys() and all(torch.equal(tensors[k], expected[k]) for k in expected)


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("canary", [Canary, Evaluated])
def test_a_file_that_would_run_code_is_refused_and_nothing_runs(tmp_path, legacy, canary) -> None:
    trace = tmp_path / "trace"
    path = torch_file(tmp_path / "model.pt", {**STATE, "extra": canary(trace)}, legacy)
    with pytest.raises(InputError, match=r"was refused: loading it would run (posix.system|eval)") as error:
        read_weights(path)
    assert "Nothing in it was run" in str(error.value)
    assert not trace.exists()
    with pytest.raises(pickle.UnpicklingError):
        torch.load(path, weights_only=True)
    torch.load(path, weights_only=False)
    assert trace.exists(), "the canary itself works"


@pytest.mark.parametrize("protocol", [0, 2, 4])
@pytest.mark.parametrize("name", ["model.pt", "model.pkl", "model.safetensors"])
def test_a_bare_pickle_is_refused_and_nothing_runs(tmp_path, protocol, name) -> None:
    trace = tmp_path / "trace"
    (tmp_path / name).write_bytes(pickle.dumps(Canary(trace), protocol))
    with pytest.raises(
        InputError, match=r"refused|nothing in it was run|neither a PyTorch nor a safetensors file"
    ):
        read_weights(tmp_path / name)
    assert not trace.exists()


def test_a_whole_module_is_refused(tmp_path) -> None:
    with pytest.raises(
        InputError, match=r"would run torch.nn.modules.linear.Linear.*state dict as .safetensors"
    ):
        read_weights(torch_file(tmp_path / "m.pt", torch.nn.Linear(2, 2)))


@pytest.mark.parametrize("legacy", [False, True])
def test_torch_files_are_read(tmp_path, legacy) -> None:
    weights = read_weights(torch_file(tmp_path / "model.ckpt", STATE, legacy))
    assert equal(weights.tensors, STATE)
    assert weights.notes == ()
    assert len(weights.sha256) == 64


def test_the_kind_is_told_by_the_content(tmp_path) -> None:
    save_file(STATE, tmp_path / "model.pt")
    weights = read_weights(tmp_path / "model.pt")
    assert equal(weights.tensors, STATE)
    assert weights.notes == ("read as safetensors, in spite of its suffix",)
    path = torch_file(tmp_path / "model.safetensors", STATE)
    assert read_weights(path).notes == ("read as PyTorch, in spite of its suffix",)
    save_file(STATE, tmp_path / "right.safetensors")
    assert read_weights(tmp_path / "right.safetensors").notes == ()


def test_lists_of_training_files_are_unpacked(tmp_path) -> None:
    """ermongroup/ncsn saves [weights, optimizer] with "module." names, ermongroup/ddim [weights, optimizer,
    epoch, step, averages].
    """
    prefixed = {f"module.{name}": value for name, value in STATE.items()}
    optimizer = {
        "state": {0: {"step": 3, "exp_avg": torch.zeros(2)}},
        "param_groups": [{"lr": 1e-3, "params": [0]}],
    }
    ncsn = read_weights(torch_file(tmp_path / "checkpoint.pth", [prefixed, optimizer]))
    assert equal(ncsn.tensors, STATE)
    assert "no averaged ones" in ncsn.notes[0]
    assert "module." in ncsn.notes[1]
    averages = {name: value + 1 for name, value in STATE.items()}
    ddim = read_weights(torch_file(tmp_path / "ckpt.pth", [prefixed, optimizer, 3, 1000, averages]))
    assert equal(ddim.tensors, averages)
    assert ddim.notes == ("took the averaged (EMA) weights of a training file",)
    plain = read_weights(torch_file(tmp_path / "plain.pth", [prefixed, optimizer, 3, 1000]))
    assert equal(plain.tensors, STATE)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_converted_and_said(tmp_path, dtype) -> None:
    state = {"a.weight": STATE["a.weight"].to(dtype), "a.bias": STATE["a.bias"]}
    weights = read_weights(torch_file(tmp_path / "half.pt", state))
    assert {name: value.dtype for name, value in weights.tensors.items()} == {
        "a.weight": dtype,
        "a.bias": torch.float32,
    }
    net = nn.ModuleDict({"a": nn.Linear(4, 3)})
    net.load_state_dict(weights.tensors)  # as the importers do, a tensor at a time
    assert equal(net.state_dict(), STATE)  # these numbers are exact in both
    assert weights.notes == (f"converted 1 of 2 tensors from {str(dtype).removeprefix('torch.')} to float32",)


@pytest.mark.parametrize("kind", ["zip", "legacy", "safetensors"])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.99])
def test_a_file_that_is_cut_off_is_said_to_be(tmp_path, kind, share) -> None:
    path = tmp_path / "model.pt"
    if kind == "safetensors":
        path = tmp_path / "model.safetensors"
        save_file(STATE, path)
    else:
        torch_file(path, STATE, legacy=kind == "legacy")
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(InputError, match=r"damaged|cut off") as error:
        read_weights(path)
    assert str(path) in str(error.value)
    assert len(str(error.value)) < 300


NO_WEIGHTS = {
    "empty.pt": (b"", "it is empty"),
    "picture.pt": (b"\x89PNG\r\n\x1a\n" + bytes(100), "a PNG picture"),
    "photo.pt": (b"\xff\xd8\xff\xe0" + bytes(100), "a JPEG picture"),
    "page.pt": (b"<!DOCTYPE html><title>Sign in</title>", "a web page"),
    "lfs.pt": (
        b"version https://git-lfs.github.com/spec/v1\noid sha256:0",
        "the file itself was not downloaded",
    ),
    "text.safetensors": (b"some text that says nothing", "neither a PyTorch nor a safetensors file"),
    "archive.pt": (gzip.compress(b"x"), "a gzip archive"),
}


@pytest.mark.parametrize("name", NO_WEIGHTS)
def test_a_file_of_another_kind_is_named(tmp_path, name) -> None:
    content, message = NO_WEIGHTS[name]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=message):
        read_weights(tmp_path / name)


def test_what_holds_no_weights_is_refused(tmp_path) -> None:
    np.savez(tmp_path / "a.npz", images=np.zeros(3))
    cases = [
        (tmp_path / "a.npz", "not a PyTorch checkpoint"),
        (torch_file(tmp_path / "optimizer.pt", {"state": {}, "param_groups": []}), "state of an optimizer"),
        (torch_file(tmp_path / "table.pt", {"epoch": 3, "name": "x"}), "a table of epoch, name"),
        (torch_file(tmp_path / "tensor.pt", torch.zeros(2)), "but Tensor"),
        (torch_file(tmp_path / "list.pt", [1, 2]), "but list"),
        (torch_file(tmp_path / "meta.pt", {"a": torch.zeros(3, device="meta")}), "a has no values"),
        (tmp_path / "none.pt", "there is no such file"),
        (tmp_path, "this is a folder"),
    ]
    for path, message in cases:
        with pytest.raises(InputError, match=message):
            read_weights(path)


OTHER = {name: value + 1 for name, value in STATE.items()}  # the weights of the last step


@pytest.mark.parametrize(
    ("content", "took"),
    [
        (
            {"model": OTHER, "ema": STATE, "optimizer": {"param_groups": []}, "step": 3},
            "averaged (EMA) weights, 'ema'",
        ),
        ({"ema_model": {"module": STATE}, "model": OTHER}, "averaged (EMA) weights, 'ema_model'"),
        (
            {"model_state_dict": OTHER, "ema": {"decay": 0.999, "shadow": STATE}},
            "averaged (EMA) weights, 'ema'",
        ),
        (
            {"state_dict": STATE, "epoch": 3},
            "the model's weights, 'state_dict', of a training file; it has no averaged",
        ),
        ({"ema": 0.9999, "model": STATE}, "the model's weights, 'model'"),
        (
            {"ema": {"_orig_mod." + name: value for name, value in STATE.items()}},
            "dropped _orig_mod. from names",
        ),
    ],
)
def test_the_averaged_weights_of_a_table_are_taken(tmp_path, content, took) -> None:
    weights = read_weights(torch_file(tmp_path / "training.pt", content))
    assert equal(weights.tensors, STATE)
    assert took in "; ".join(weights.notes)


@pytest.mark.parametrize("prefix", ["_orig_mod.", "module.", "module._orig_mod.", "_orig_mod.module."])
def test_prefixes_that_wrappers_leave_are_dropped(tmp_path, prefix) -> None:
    state = {prefix + name: value for name, value in STATE.items()}
    weights = read_weights(torch_file(tmp_path / "wrapped.pt", state))
    assert equal(weights.tensors, STATE)
    assert all(part in " ".join(weights.notes) for part in prefix.rstrip(".").split("."))


def test_a_name_within_that_torch_compile_has_changed(tmp_path) -> None:
    """A compiled part of a network; names that would be the same without the prefix stay."""
    state = {"a._orig_mod.weight": STATE["a.weight"], "a.bias": STATE["a.bias"]}
    assert equal(read_weights(torch_file(tmp_path / "part.pt", state)).tensors, STATE)
    twice = {"a.weight": torch.ones(1), "_orig_mod.a.weight": torch.zeros(1)}
    assert equal(read_weights(torch_file(tmp_path / "twice.pt", twice)).tensors, twice)


def test_a_table_whose_keys_are_no_text_is_refused(tmp_path) -> None:
    for content in ({1: torch.zeros(2)}, {"model": {(1, 2): torch.zeros(2)}}, {b"a" * 10**6: 3}):
        with pytest.raises(InputError, match="holds no state dict") as error:
            read_weights(torch_file(tmp_path / "keys.pt", content))
        assert len(str(error.value)) < 600


def test_a_compressed_file_is_refused(tmp_path) -> None:
    """10 kB that hold 10 MB: so does one of 9 GB, which would fill memory."""
    stored = torch_file(tmp_path / "a.pt", {"a": torch.zeros(2_500_000)})
    with (
        zipfile.ZipFile(stored) as source,
        zipfile.ZipFile(tmp_path / "b.pt", "w", zipfile.ZIP_DEFLATED) as target,
    ):
        for name in source.namelist():
            target.writestr(name, source.read(name))
    with pytest.raises(InputError, match="it is compressed"):
        read_weights(tmp_path / "b.pt")


def test_what_is_no_regular_file_is_refused_at_once(tmp_path) -> None:
    os.mkfifo(tmp_path / "model.pt")
    with pytest.raises(InputError, match="this is a named pipe"):
        read_weights(tmp_path / "model.pt")
