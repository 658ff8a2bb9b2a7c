"""Weights that are not what is wanted are refused before they are taken, with the first names of what differs."""

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from scorefield.runtime.errors import InputError
from scorefield.runtime.weights import WeightsFile, check_tensors, fill, misfit, open_tensors, read_tensors

STATE = {"weight": torch.arange(6.0).reshape(2, 3), "bias": torch.ones(2)}


def meta():
    with torch.device("meta"):
        net = nn.Linear(3, 2)
    return net


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"bias": None}, r"1 tensor is missing \(bias\)"),
        ({"other": torch.zeros(1)}, r"1 tensor is unknown \(other\)"),
        ({"bias": torch.zeros(3)}, r"1 tensor is of another shape \(bias: \[3\] instead of \[2\]\)"),
        ({"bias": torch.zeros(2, dtype=torch.bool)}, r"of another type \(bias: bool instead of float32\)"),
        (
            {"bias": torch.zeros(2, dtype=torch.complex64)},
            r"of another type \(bias: complex64 instead of float32\)",
        ),
        ({"bias": torch.zeros(2, dtype=torch.int64)}, r"of another type \(bias: int64 instead of float32\)"),
        ({"bias": torch.tensor([1, float("nan")])}, "bias holds NaN or infinite values"),
        ({"weight": -torch.full((2, 3), float("inf"))}, "weight holds NaN or infinite values"),
        ({"weight": torch.zeros(1).expand(2, 3)}, "weight says 6 numbers, and fewer are stored"),
        ({"weight": torch.eye(3)[:2].to_sparse()}, "weight is a tensor without plain values"),
        ({"bias": torch.zeros(2, device="meta")}, "bias is a tensor without plain values"),
    ],
)
def test_what_does_not_fit_is_said(tmp_path, change, said):
    state = {name: value for name, value in (STATE | change).items() if value is not None}
    path = tmp_path / "weights.pt"
    torch.save(state, path)
    with pytest.raises(InputError, match=said) as error:
        fill(meta(), read_tensors(path, "a linear layer")[0], path, "a linear layer")
    assert str(error.value).startswith(str(path))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_any_floating_point_type_fits(dtype):
    state = {name: value.to(dtype) for name, value in STATE.items()}
    assert misfit(STATE, state) is None
    check_tensors(state)
    assert misfit({"count": torch.tensor(3)}, {"count": torch.tensor(4)}) is None
    assert misfit({"count": torch.tensor(3)}, {"count": torch.tensor(4.0)}) is not None


def test_a_hundred_thousand_names_are_counted_and_the_first_shown():
    found = {f"{number}" + "x" * 1000: torch.zeros(1) for number in range(1000)}
    said = misfit(STATE, found)
    assert said.startswith("2 tensors are missing (weight, bias); 1,000 tensors are unknown (0xxx")
    assert said.endswith("…, …)")
    assert len(said) < 600


def test_a_file_of_weights_says_what_it_holds_and_loads_what_was_hashed(tmp_path):
    path = tmp_path / "model.safetensors"
    state = {**STATE, "half": torch.ones(4, dtype=torch.float16), "count": torch.tensor(3)}
    save_file(state, path)
    opened = WeightsFile(path)
    headers = opened.headers()
    assert {name: (header.shape, header.dtype) for name, header in headers.items()} == {
        name: (tuple(value.shape), value.dtype) for name, value in state.items()
    }
    assert misfit(state, headers) is None
    path.unlink()  # another file takes its place
    save_file({"other": torch.zeros(1)}, path)
    loaded = opened.load()
    assert all(torch.equal(loaded[name], value) for name, value in state.items())
    path = tmp_path / "broken.safetensors"
    path.write_bytes(b"\x10\0\0\0\0\0\0\0{" + b"[" * 15)
    with pytest.raises(InputError, match=r"damaged, cut off or no \.safetensors file"):
        WeightsFile(path).headers()
    with (
        pytest.raises(InputError, match=r"damaged, cut off or no \.safetensors file"),
        open_tensors(path, "weights"),
    ):
        pass


def test_a_file_of_any_size_that_holds_no_weights_is_refused_before_it_is_hashed(tmp_path):
    path = tmp_path / "model.safetensors"
    with path.open("wb") as file:
        file.truncate(2**42)  # sparse: 4 TB that take no space, and hours to hash
    with pytest.raises(InputError, match=r"damaged, cut off or no \.safetensors file"):
        WeightsFile(path)
    with pytest.raises(InputError, match=r"damaged, cut off or no \.safetensors file"):
        read_tensors(path, "weights")
    path.rename(tmp_path / "model.pt")
    with pytest.raises(InputError, match=r"this needs 4,398\.0 GB of memory"):
        read_tensors(tmp_path / "model.pt", "weights")
