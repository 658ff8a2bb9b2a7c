"""What `scorefield info` says a network costs, against counts by hand and measurements; nothing is allocated
for it.
"""

import json
import resource
import shutil

import pytest
import torch
from torch import Tensor, nn

import scorefield as sf
from scorefield.nets import UNet
from scorefield.nets.attention import AttentionBlock
from scorefield.planning.facts import cost, info_facts, info_rows, readable
from scorefield.runs.build import build_net, build_process, expected_data, read_recipe, recipe_names

PROCESS = sf.process.from_betas(sf.process.cosine_betas(100))


class Two(nn.Module):
    """Three numbers -> eight -> three, and SiLU between."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(3, 8, bias=False), nn.SiLU(), nn.Linear(8, 3, bias=False))

    def forward(self, x: Tensor, c: Tensor, y: Tensor | None = None) -> Tensor:
        return self.layers(x)


def denoiser(make, shape: tuple[int, ...]) -> sf.Denoiser:
    with torch.device("meta"):
        net = make()
    return sf.Denoiser(net, PROCESS, data=sf.DataSpec(shape))


def by_hand(net: nn.Module, *inputs: Tensor) -> tuple[int, int]:
    """Operations forward: 2·(weights of a place)·(places) of every convolution and linear layer, 4·C·L² of
    every attention over L pixels; and those of the way back, twice as many but for the two layers whose input
    is data.
    """
    forward: dict[nn.Module, int] = {}

    def count(module: nn.Module, given: tuple[Tensor, ...], result: Tensor) -> None:
        if isinstance(module, nn.Conv1d | nn.Conv2d | nn.Linear):
            places = result[0].numel() // module.weight.shape[0]
            forward[module] = 2 * module.weight.numel() * places
        elif isinstance(module, AttentionBlock):
            _, channels, height, width = result.shape
            forward[module] = 4 * channels * (height * width) ** 2

    hooks = [module.register_forward_hook(count) for module in net.modules()]
    net(*inputs)
    for hook in hooks:
        hook.remove()
    of_data = forward[net.input_blocks[0][0]] + forward[net.time_embed[0]]
    total = sum(forward.values())
    return total, 3 * total - of_data


def test_info_says_what_this_machine_computes_in(monkeypatch) -> None:
    """With bf16 units and numba, and without either."""
    monkeypatch.setattr("scorefield.planning.facts.bf16_units", lambda device: "AMX")
    monkeypatch.setattr("scorefield.nets.fused.available", lambda: True)
    facts = info_facts("digits")
    assert facts["precision"] == "bf16 (AMX)"
    monkeypatch.setattr("scorefield.planning.facts.bf16_units", lambda device: None)
    monkeypatch.setattr("scorefield.nets.fused.available", lambda: False)
    facts = info_facts("digits")
    assert facts["precision"].startswith("fp32 (this machine")
    if facts["device"] == "cpu":
        assert "pip install scorefield[fast]" in facts["kernels"]


def test_two_layers_counted_by_hand() -> None:
    """Forward 2·(3·8 + 8·3); back the two weights' gradients, and the hidden layer's: 2·(24 + 24 + 24). Kept
    are the input (3), what goes into SiLU (8) and what comes out of it (8), four bytes each.
    """
    assert cost(denoiser(Two, (3,))) == (96, 96 + 144, 4 * (3 + 8 + 8))


@pytest.mark.parametrize("options", [{}, {"updown": True, "scale_shift": False}])
def test_operations_of_a_u_net(options: dict) -> None:
    model = denoiser(
        lambda: UNet(3, channels=32, channel_mult=(1, 2), attention=(2,), blocks=1, **options), (3, 16, 16)
    )
    expected = by_hand(model.net, torch.zeros(1, 3, 16, 16, device="meta"), torch.zeros(1, device="meta"))  # type: ignore[arg-type]
    assert cost(model)[:2] == expected


@pytest.mark.parametrize(
    "make",
    [
        lambda: UNet(3, channels=32, channel_mult=(1, 1), attention=(2,), blocks=1, dropout=0.1),
        lambda: UNet(
            3, channels=32, channel_mult=(1, 1), attention=(2,), blocks=1, updown=True, checkpoint=True
        ),
    ],
)
def test_what_is_kept_is_what_a_real_step_keeps(make) -> None:
    """On the CPU, by the addresses of the tensors that autograd saves."""
    net = make().train()
    saved: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        saved[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        output = net(torch.zeros(1, 3, 16, 16), torch.zeros(1))
    parameters = {parameter.untyped_storage().data_ptr() for parameter in net.parameters()}
    kept = sum(
        tensor.untyped_storage().nbytes() for address, tensor in saved.items() if address not in parameters
    )
    assert output.requires_grad
    assert cost(denoiser(make, (3, 16, 16))).kept == kept


def test_info_of_imagenet64_adm_allocates_nothing() -> None:
    """Its weights alone would take 1.2 GB."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    facts = info_facts("imagenet64-adm")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 600_000  # KiB: torch's own modules
    assert facts["parameters"] == 295_904_454
    net = build_net_of(read_recipe("imagenet64-adm"))
    forward, training = by_hand(
        net,
        torch.zeros(1, 3, 64, 64, device="meta"),
        torch.zeros(1, device="meta"),
        torch.zeros(1, dtype=torch.long, device="meta"),
    )
    assert (facts["evaluation_flops"], facts["training_flops"]) == (forward, training)
    rows = dict(info_rows(facts))
    assert rows["parameters"] == "295,904,454"
    assert rows["FLOPs of one evaluation"] == f"{forward / 1e9:.3g} G for one example of shape 3×64×64"
    assert rows["FLOPs of one training step"] == f"{training / 1e9:.3g} G per example"
    assert rows["activations kept for the backward pass"].endswith(" MB per example in fp32")


@pytest.mark.parametrize("name", ["toy-moons", "digits-classifier"])
def test_info_of_every_kind_of_model(name: str) -> None:
    facts = info_facts(name)
    recipe = read_recipe(name)
    count = sum(parameter.numel() for parameter in build_net_of(recipe).parameters())
    assert facts["parameters"] == count
    assert facts["evaluation_flops"] > 0


@pytest.mark.slow
@pytest.mark.parametrize("name", recipe_names())
def test_info_of_every_recipe(name: str) -> None:
    assert info_facts(name)["training_flops"] > 0


def build_net_of(recipe) -> nn.Module:
    process = build_process(recipe)
    with torch.device("meta"):
        return build_net(recipe, expected_data(recipe), process)


def test_readable_numbers() -> None:
    numbers = {
        0: "0 ",
        999: "999 ",
        999.6: "1 k",
        1000: "1 k",
        999_499: "999 k",
        999_600: "1 M",
        1.2345e10: "12.3 G",
        3.96e12: "3.96 T",
    }
    assert {number: readable(number) for number in numbers} == numbers


def test_info_of_a_run_says_what_was_done(tmp_path, tiny_run) -> None:
    """Not what its recipe would do: the steps that are done, and the data that it has seen."""
    run = tiny_run.copy(tmp_path / "r", "digits", steps=3)
    config = run / "config.toml"
    config.write_text(config.read_text().replace("\nsteps = 3\n", "\nsteps = 100000\n"))
    facts = info_facts(str(run))
    assert facts["training"] == {"step": 3, "steps": 100_000, "batch_size": 8, "seed": 0}
    assert dict(info_rows(facts))["training"] == "3 of 100,000 steps of 8, seed 0"
    assert facts["what"] == read_recipe("digits").title
    assert json.loads(json.dumps(facts)) == {
        **facts,
        "trained_on": {**facts["trained_on"], "classes": [*"0123456789"]},
    }
    config.write_text(config.read_text().replace('source = "digits"', 'source = "photos"'))
    assert info_facts(str(run))["what"] == "the recipe digits, on photos"
    for checkpoint in (run / "checkpoints").iterdir():
        shutil.rmtree(checkpoint)
    facts = info_facts(str(run))
    assert facts["training"]["step"] is None
    assert dict(info_rows(facts))["training"].startswith("none of 100,000 steps")
