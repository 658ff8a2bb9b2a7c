"""Score-matching losses against the original programs (golden cases E01-E03, F01-F03)."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors import safe_open
from torch import Tensor

from scorefield.objectives import score_matching as sm

GOLDEN = Path(__file__).parents[1] / "golden"
PRECISIONS = pytest.mark.parametrize(
    ("dtype", "prefix", "tolerance"), [(torch.float64, "out64", 1e-9), (torch.float32, "out", 1e-5)]
)


class Case:
    """One golden file: inputs and parameters in the dtype asked for, expected tensors under `out.` or
    `out64.`.
    """

    def __init__(self, name: str, dtype: torch.dtype, prefix: str, tolerance: float) -> None:
        with safe_open(GOLDEN / f"{name}.safetensors", "pt") as file:
            self.tensors: dict[str, Tensor] = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
            self.config = json.loads(file.metadata()["config"])
        self.dtype, self.prefix, self.tolerance = dtype, prefix, tolerance
        self.compared: set[str] = set()

    def input(self, name: str) -> Tensor:
        tensor = self.tensors[f"in.{name}"]
        return tensor.to(self.dtype) if tensor.is_floating_point() else tensor

    def parameters(self, group: str = "") -> dict[str, Tensor]:
        prefix = f"param.{group}"
        found = {
            key.removeprefix(prefix): t.to(self.dtype)
            for key, t in self.tensors.items()
            if key.startswith(prefix)
        }
        return {key: t.clone().requires_grad_(True) for key, t in found.items()}

    def assert_close(self, name: str, value: Tensor) -> None:
        reference = self.tensors[f"{self.prefix}.{name}"]
        assert value.shape == reference.shape, name
        assert value.dtype == self.dtype, name
        error = (value.detach() - reference).abs().max() / reference.abs().max()
        assert error <= self.tolerance, f"{name}: {error:.2e}"
        self.compared.add(name)

    def assert_loss(self, name: str, loss: Tensor, parameters: dict[str, Tensor]) -> None:
        self.assert_close(f"{name}loss", loss)
        self.assert_gradients(name, loss, parameters)

    def assert_gradients(self, name: str, loss: Tensor, parameters: dict[str, Tensor]) -> None:
        gradients = torch.autograd.grad(loss, list(parameters.values()))
        for key, gradient in zip(parameters, gradients, strict=True):
            self.assert_close(f"{name}grad_{key}", gradient)

    def assert_complete(self, but: tuple[str, ...] = ()) -> None:
        """Every stored result was compared: a test that skips one says so."""
        stored = {
            key.removeprefix(f"{self.prefix}.") for key in self.tensors if key.startswith(f"{self.prefix}.")
        }
        assert stored - self.compared == set(but)


def image_score(p: dict[str, Tensor], sigma: Tensor) -> sm.Score:
    """Score stub A: (m - x)/(sigma^2 + 0.25) + 0.3 tanh(conv3x3(x) + b)."""
    spread = (sigma**2 + 0.25).reshape(-1, 1, 1, 1)
    return lambda x: (p["m"] - x) / spread + 0.3 * torch.tanh(F.conv2d(x, p["W"], p["b"], padding=1))


def mlp_score(p: dict[str, Tensor]) -> sm.Score:
    return lambda x: F.linear(F.softplus(F.linear(x, p["W1"], p["b1"])), p["W2"], p["b2"])


def energy(p: dict[str, Tensor]) -> Callable[[Tensor], Tensor]:
    """E(x) = w . softplus(W2 tanh(W1 x + b1) + b2) + a/2 |x|^2."""

    def value(x: Tensor) -> Tensor:
        hidden = F.softplus(F.linear(torch.tanh(F.linear(x, p["W1"], p["b1"])), p["W2"], p["b2"]))
        return hidden @ p["w"] + 0.5 * p["a"] * (x**2).sum(dim=1)

    return value


@PRECISIONS
def test_e01_denoising_with_a_level_per_example(dtype: torch.dtype, prefix: str, tolerance: float) -> None:
    case = Case("E01_anneal_dsm", dtype, prefix, tolerance)
    sigma = case.input("sigmas")[case.input("labels")]
    x, eps = case.input("x"), case.input("noise")
    for power in case.config["anneal_powers"]:
        p = case.parameters()
        seen: list[Tensor] = []

        def score(x_in: Tensor, p: dict[str, Tensor] = p, seen: list[Tensor] = seen) -> Tensor:
            seen.append(x_in)
            return image_score(p, sigma)(x_in)

        loss = sm.denoising_score_matching(score, x, eps, sigma) * sigma**power
        case.assert_close("perturbed", seen[0])
        case.assert_loss(f"p{power}.", loss.mean(), p)
    case.assert_complete()


@PRECISIONS
def test_e02_denoising_energy_and_score_form(dtype: torch.dtype, prefix: str, tolerance: float) -> None:
    case = Case("E02_dsm", dtype, prefix, tolerance)
    for sigma in case.config["sigmas"]:
        p = case.parameters("energy.")
        score = sm.score_from_energy(energy(p))
        loss = sm.denoising_score_matching(
            score, case.input("energy.x"), case.input("energy.noise"), sigma
        ).mean()
        case.assert_loss(
            f"energy.sigma{sigma}.", sigma**4 * loss, p
        )  # the code's energy form: sigma^4 times the score form
        p = case.parameters("score.")
        score = image_score(p, case.input("sigmas")[:1])
        loss = sm.denoising_score_matching(
            score, case.input("score.x"), case.input("score.noise"), sigma
        ).mean()
        case.assert_loss(f"score.sigma{sigma}.", loss, p)
    case.assert_complete()


@PRECISIONS
def test_e03_sliced_matching_at_noise_levels(dtype: torch.dtype, prefix: str, tolerance: float) -> None:
    case = Case("E03_anneal_ssm_vr", dtype, prefix, tolerance)
    p = case.parameters()
    sigma = case.input("sigmas")[case.input("labels")]
    x = case.input("x") + sigma.reshape(-1, 1, 1, 1) * case.input("noise")
    v = case.input("v").reshape(case.config["n_particles"], *x.shape)
    loss = sm.sliced_score_matching_vr(image_score(p, sigma), x, v) * sigma**2
    case.assert_loss("", loss.mean(), p)
    case.assert_complete()


@PRECISIONS
def test_f01_several_projections(dtype: torch.dtype, prefix: str, tolerance: float) -> None:
    case = Case("F01_sliced_score_matching", dtype, prefix, tolerance)
    x, g = case.input("x"), case.input("g").reshape(case.config["n_particles"], *case.input("x").shape)
    unit = g / g.norm(dim=2, keepdim=True)  # the code's unit sphere: 1/D of the exact loss
    for group, kind in (("score", "estimation"), ("energy", "matching")):
        for suffix, v, function in (
            ("", unit, sm.sliced_score_matching),
            ("_vr", g, sm.sliced_score_matching_vr),
        ):
            p = case.parameters(f"{group}.")
            score = mlp_score(p) if group == "score" else sm.score_from_energy(energy(p))
            name = f"sliced_score_{kind}{suffix}."
            loss = function(score, x, v).mean()
            s = score(x)
            quadratic = 0.5 * ((s**2).sum(dim=1).mean() if suffix else ((v * s).sum(dim=2) ** 2).mean())
            case.assert_loss(name, loss, p)
            case.assert_close(f"{name}loss1", quadratic)
            case.assert_close(f"{name}loss2", loss - quadratic)
    case.assert_complete()


def f02_variants(g: Tensor) -> Iterator[tuple[str, Tensor]]:
    source = Replay(g)
    kinds: dict[str, sm.ProjectionKind] = {
        "radermacher": "rademacher",
        "sphere": "sphere",
        "gaussian": "gaussian",
    }
    for name, kind in kinds.items():
        yield name, sm.projections(kind, g, source)


class Replay:
    """A noise source that always answers with the stored draw."""

    def __init__(self, g: Tensor) -> None:
        self.g = g

    def normal(self, shape: tuple[int, ...]) -> Tensor:
        assert shape == tuple(self.g.shape)
        return self.g


@PRECISIONS
def test_f02_single_projection_and_kinds(dtype: torch.dtype, prefix: str, tolerance: float) -> None:
    case = Case("F02_single_projection_ssm", dtype, prefix, tolerance)
    x = case.input("x")
    for kind, v in f02_variants(case.input("g")):
        for name, function in (("ssm", sm.sliced_score_matching), ("ssm_vr", sm.sliced_score_matching_vr)):
            if (name, kind) == ("ssm_vr", "sphere"):
                continue  # not in the file
            p = case.parameters("energy.")
            score = sm.score_from_energy(energy(p))
            case.assert_loss(f"{name}.{kind}.", function(score, x, v).mean(), p)
            leaf = x.clone().requires_grad_(True)
            s = score(leaf)
            case.assert_close(f"{name}.{kind}.grad2", torch.autograd.grad(s, leaf, v)[0])
            if name == "ssm":
                case.assert_close(f"{name}.{kind}.grad1", s)
    case.assert_complete()


@PRECISIONS
def test_f03_exact_trace(dtype: torch.dtype, prefix: str, tolerance: float) -> None:
    case = Case("F03_exact_score_matching", dtype, prefix, tolerance)
    p = case.parameters("energy.")
    score = sm.score_from_energy(energy(p))
    loss = sm.implicit_score_matching(score, case.input("x"))
    case.assert_close("exact.per_sample", loss)
    case.assert_gradients("exact.", loss.mean(), p)
    with torch.no_grad():
        case.assert_close("exact.per_sample_eval", sm.implicit_score_matching(score, case.input("x")))
    case.assert_close("exact_old.mean", loss.mean())
    case.assert_close("score_matching.mean", loss.mean())
    case.assert_complete()
