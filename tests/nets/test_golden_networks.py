"""The networks against stored outputs of the original implementations (tests/golden, cases C00-C13).

float64: every tensor to 1e-9 of its largest magnitude. float32: to 1e-5; where the original's own float32
result is further than that from its float64 twin (input gradients, embeddings at t near 1000), to twice that
distance.
"""

import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from torch import Tensor, nn

from scorefield.interop import ddpm, guided_diffusion, improved_diffusion, ncsn
from scorefield.nets.blocks import cos_sin_embedding, sin_cos_embedding

GOLDEN = Path(__file__).parents[1] / "golden"
CASES = {
    "C01_unet_guided_0": (guided_diffusion, "UNetModel"),
    "C02_unet_guided_1": (guided_diffusion, "UNetModel"),
    "C03_unet_guided_2": (guided_diffusion, "UNetModel"),
    "C04_unet_guided_3": (guided_diffusion, "UNetModel"),
    "C05_unet_improved": (improved_diffusion, "UNetModel"),
    "C06_encoder_adaptive": (guided_diffusion, "EncoderUNetModel"),
    "C07_encoder_attention": (guided_diffusion, "EncoderUNetModel"),
    "C08_encoder_spatial": (guided_diffusion, "EncoderUNetModel"),
    "C09_encoder_spatial_v2": (guided_diffusion, "EncoderUNetModel"),
    "C10_superres": (guided_diffusion, "SuperResModel"),
    "C11_cond_refinenet_dilated": (ncsn, "CondRefineNetDilated"),
    "C12_unet_ddim": (ddpm, "Model"),
}


def load_case(case: str) -> tuple[dict, dict[str, Tensor]]:
    with safe_open(GOLDEN / f"{case}.safetensors", framework="pt") as file:
        return json.loads(file.metadata()["config"]), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict


def build(case: str, tensors: dict[str, Tensor], config: dict) -> nn.Module:
    module, kind = CASES[case]
    net = module.network(kind, config.get("constructor", config))
    prefix = "state_dict."
    net.load_state_dict(
        {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}, strict=True
    )
    return net.eval()


def evaluate(case: str, net: nn.Module, tensors: dict[str, Tensor], dtype: torch.dtype) -> dict[str, Tensor]:
    """The stored quantities, computed by `net` in dtype."""
    net = net.to(dtype)
    x, t, y = tensors["in.x"].to(dtype).requires_grad_(), tensors.get("in.t"), tensors.get("in.y")
    if case.startswith("C11"):  # its c is the index of the noise level, which the case calls y
        output, results = net(x, y), {}
    elif "encoder" in case:  # its y is the class whose log-probability is differentiated
        output = net(x, t)
        log_prob = torch.log_softmax(output, dim=1)[torch.arange(len(y)), y]
        (guidance,) = torch.autograd.grad(log_prob.sum(), x, retain_graph=True)
        results = {"emb": net.time_embed(t), "log_prob_y": log_prob, "classifier_grad": guidance}
    elif "superres" in case:
        output, results = net(x, t, low_res=tensors["in.low_res"].to(dtype)), {"emb": net.embed(t)}
    else:
        output = net(x, t, y)
        results = {"emb": net.temb(t) if case.startswith("C12") else net.embed(t, y)}
    (grad_x,) = torch.autograd.grad((output * tensors["in.cotangent"].to(dtype)).sum(), x)
    return results | {"output": output, "grad_x": grad_x}


def error(value: Tensor, expected: Tensor) -> float:
    """Largest difference, relative to the largest magnitude of the tensor."""
    value, expected = value.detach().double(), expected.double()
    return ((value - expected).abs().max() / expected.abs().max()).item()


@pytest.mark.parametrize("case", CASES)
def test_float64_agrees_with_the_original(case: str) -> None:
    # [ADM Sec. 3; DDPM App. B; NCSN App. A]
    config, tensors = load_case(case)
    for name, value in evaluate(case, build(case, tensors, config), tensors, torch.float64).items():
        assert value.dtype == torch.float64
        assert error(value, tensors[f"out64.{name}"]) < 1e-9, name


@pytest.mark.parametrize("case", CASES)
def test_float32_agrees_with_the_original(case: str) -> None:
    config, tensors = load_case(case)
    for name, value in evaluate(case, build(case, tensors, config), tensors, torch.float32).items():
        own = error(tensors[f"out.{name}"], tensors[f"out64.{name}"])
        assert error(value, tensors[f"out.{name}"]) < max(1e-5, 2 * own), name


@pytest.mark.parametrize("case", CASES)
def test_channels_last_gives_the_same_result(case: str) -> None:
    config, tensors = load_case(case)
    net = build(case, tensors, config).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    tensors["in.x"] = tensors["in.x"].to(memory_format=torch.channels_last)
    value = evaluate(case, net, tensors, torch.float32)["output"]
    assert error(value, tensors["out.output"]) < 2e-5


@pytest.mark.parametrize("case", [case for case in CASES if not case.startswith("C11")])
def test_integer_and_float_times_give_the_same_result(case: str) -> None:
    config, tensors = load_case(case)
    net = build(case, tensors, config)
    expected = evaluate(case, net, tensors, torch.float32)["output"]
    tensors["in.t"] = tensors["in.t"].float()
    assert torch.equal(evaluate(case, net, tensors, torch.float32)["output"], expected)


@pytest.mark.parametrize("case", CASES)
def test_parameter_count(case: str) -> None:
    config, tensors = load_case(case)
    assert sum(p.numel() for p in build(case, tensors, config).parameters()) == config["num_parameters"]


@pytest.mark.parametrize("case", [case for case in CASES if case < "C11"])
def test_every_stage_agrees(case: str) -> None:
    """Mean and root mean square of every stage's output, in forward order; locates a mismatch."""
    config, tensors = load_case(case)
    net = build(case, tensors, config)
    stats: list[Tensor] = []

    def record(module: nn.Module, inputs: object, h: Tensor) -> None:
        flat = h.detach().flatten(1)
        stats.append(torch.stack([flat.mean(1), flat.square().mean(1).sqrt()], dim=1))

    for stage in [*net.input_blocks, net.middle_block, *getattr(net, "output_blocks", [])]:  # type: ignore[misc]
        stage.register_forward_hook(record)
    evaluate(case, net, tensors, torch.float64)
    assert error(torch.stack(stats), tensors["out64.block_stats"]) < 1e-9


@pytest.mark.parametrize("times", ["int", "float"])
def test_embedding_of_improved_ddpm(times: str) -> None:
    config, tensors = load_case("C00_timestep_embedding")
    for i, arguments in enumerate(config["cases"]):
        c = tensors[f"in.t_{times}"]
        assert error(cos_sin_embedding(c.double(), **arguments), tensors[f"out64.e{i}.{times}"]) < 1e-12
        own = error(tensors[f"out.e{i}.{times}"], tensors[f"out64.e{i}.{times}"])
        assert error(cos_sin_embedding(c.float(), **arguments), tensors[f"out.e{i}.{times}"]) < max(
            1e-5, 2 * own
        )


def test_embedding_of_ddpm() -> None:
    config, tensors = load_case("C13_timestep_embedding_ddim")
    for dim in config["dims"]:
        assert error(sin_cos_embedding(tensors["in.t"].double(), dim), tensors[f"out64.d{dim}"]) < 1e-12
        assert error(sin_cos_embedding(tensors["in.t"].float(), dim), tensors[f"out.d{dim}"]) < 1e-5
