"""What `scorefield plan` says, against what a real step allocates, and against sums by hand."""

import json

import pytest
import tomli_w
import torch
from support import call
from torch.profiler import ProfilerActivity, profile

from scorefield.planning import make_plan, step_memory
from scorefield.planning.facts import cost
from scorefield.runs.build import build_model, expected_data, meta_model, read_recipe, with_overrides
from scorefield.runtime.errors import InputError

GIB = 2**30
SMALL = ["net.blocks=1", "net.attention=[2]"]


def allocated(recipe, batch, dtype) -> int:
    """The most bytes that torch's allocator had given out at a time during a real step, by its own account."""
    spec = expected_data(recipe)
    model = build_model(recipe, spec).train()
    inputs = model.network_inputs(batch)

    def step() -> None:
        with torch.autocast("cpu", dtype or torch.bfloat16, enabled=dtype is not None):
            output = inputs.call(model.net, "cpu")
        output.float().square().mean().backward()

    step()
    model.zero_grad(set_to_none=True)
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        step()
    now = most = 0
    for event in profiled.profiler.kineto_results.events():
        if event.name() == "[memory]":
            now += event.nbytes()
            most = max(most, now)
    return most


@pytest.mark.parametrize(
    ("name", "settings", "dtype", "batch", "tolerance"),
    [
        ("digits", [], None, 16, 0.03),
        ("digits", [], torch.bfloat16, 16, 0.03),
        ("digits", ["net.checkpoint=true"], None, 16, 0.03),
        ("digits-ncsn", [], None, 32, 0.05),  # of 16, an AVX2 convolution's scratch space is more
        ("toy-moons", [], None, 16, 0.03),
    ],
)
def test_a_step_takes_what_a_real_one_allocates(name, settings, dtype, batch, tolerance) -> None:
    """But for the buffers inside one operation, such as the copy that softmax makes of a gradient over many
    positions.
    """
    if "AVX512" not in torch.backends.cpu.get_cpu_capability() and dtype is torch.bfloat16:
        pytest.skip("convolutions in bf16 work on copies in fp32 on a processor without AVX512")
    recipe = with_overrides(read_recipe(name), settings)
    planned = step_memory(recipe, expected_data(recipe), batch, dtype)
    assert planned == pytest.approx(allocated(recipe, batch, dtype), rel=tolerance)


@pytest.fixture
def small(tmp_path) -> str:
    """The recipe `digits` with a network of one block."""
    path = tmp_path / "small.toml"
    path.write_text(tomli_w.dumps(with_overrides(read_recipe("digits"), SMALL).model_dump(exclude_none=True)))
    return str(path)


def test_the_sums_of_a_plan(small) -> None:
    recipe = read_recipe(small)
    spec = expected_data(recipe)
    parameters = sum(p.numel() for p in build_model(recipe, spec).parameters())
    found = make_plan(small, batch=16, flops=1e9, device="cpu", memory=1)
    dtype = None if found.precision == "fp32" else torch.bfloat16
    assert found.parameters == parameters
    assert (found.weights, found.gradients, found.optimizer, found.average) == tuple(
        4 * parameters * k for k in (1, 1, 2, 1)
    )
    step, half = (step_memory(recipe, spec, batch, dtype) for batch in (16, 8))
    assert found.step == step
    assert found.kept == (step - half) // 8
    assert found.plain == 16 * parameters + step
    assert found.checkpointed < found.plain
    assert found.flops == 16 * cost(meta_model(recipe, spec)).training
    assert found.seconds == pytest.approx(found.flops / 1e9)
    assert found.days == pytest.approx(found.seconds * recipe.training.steps / 86_400)
    assert (found.sharded, found.parts, found.fits) == (None, 1, "yes")


def test_what_does_not_fit_plainly() -> None:
    whole = make_plan("toy-moons", batch=64, flops=1e12, device="cpu")
    assert whole.fits.startswith("give --memory")
    bytes_in_two = whole.plain - 32 * whole.kept
    assert (
        make_plan("toy-moons", batch=64, flops=1e12, device="cpu", memory=(bytes_in_two + 1) / GIB).parts == 2
    )
    tight = make_plan("toy-moons", batch=64, flops=1e12, device="cpu", memory=1e-3)
    assert tight.parts is None
    assert tight.fits.startswith("no: use a smaller batch")


def test_several_devices_share_a_batch_and_the_state() -> None:
    one, four = (
        make_plan("toy-moons", devices=devices, batch=64, flops=1e12, device="cpu") for devices in (1, 4)
    )
    alone = make_plan("toy-moons", batch=16, flops=1e12, device="cpu")
    assert four.seconds == pytest.approx(one.seconds / 4)
    assert four.step == alone.step
    assert four.plain == alone.plain + alone.gradients
    assert four.sharded < four.plain
    assert make_plan("toy-moons", devices=4, batch=16, flops=1e12).device == "cuda"


def test_a_gpu_keeps_more_of_normalization(small) -> None:
    recipe = read_recipe(small)
    here, there = (
        step_memory(recipe, expected_data(recipe), 16, torch.bfloat16, kind) for kind in ("cpu", "cuda")
    )
    assert there > 1.3 * here


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"devices": 3}, "a batch of 64 cannot be divided equally among 3 devices"),
        ({"batch": 0}, "batch must be positive"),
        ({"memory": -1.0}, "memory must be positive"),
        ({"device": "tpu"}, "cpu and cuda"),
    ],
)
def test_refusals(options, message) -> None:
    with pytest.raises(InputError, match=message):
        make_plan("digits", **options)


def test_the_command_measures_and_prints(capsys) -> None:
    status, out, _ = call(capsys, "plan", "toy-moons", "--device", "cpu", "--json")
    found = json.loads(out)
    assert status == 0
    assert found["flops_per_second"] > 0
    assert found["process"] > 0
    assert found["measured"] == "measured on 256 examples per step"
    assert found["seconds"] == pytest.approx(found["flops"] / found["flops_per_second"])
    status, out, _ = call(capsys, "plan", "toy-moons", "--device", "cuda", "--memory", "1")
    assert status == 0
    assert "plain" in out
    if not torch.cuda.is_available():
        assert "give --flops" in " ".join(out.split())
    status, _, err = call(capsys, "plan", "no-such-recipe")
    assert status == 1
    assert "unknown recipe" in err


def test_a_run_is_planned_like_its_recipe(capsys, tmp_path) -> None:
    run = tmp_path / "run"
    assert call(capsys, "train", "toy-moons", "--run", run, "--steps", 1, "--device", "cpu")[0] == 0
    planned, recipe = (make_plan(str(what), flops=1e9, device="cpu") for what in (run, "toy-moons"))
    assert planned.name == f"{run} (toy-moons)"
    assert planned.steps == 1
    assert (planned.parameters, planned.plain, planned.flops) == (
        recipe.parameters,
        recipe.plain,
        recipe.flops,
    )


@pytest.mark.slow
def test_imagenet256_on_eight_devices() -> None:
    """554 million parameters [ADM Table 4]; a share of 32 images fits 80 GiB in parts or with checkpointing."""
    found = make_plan("imagenet256-adm", devices=8, memory=80, flops=2e14)
    assert round(found.parameters / 1e6) == 554
    assert found.plain > 80 * GIB > found.checkpointed
    assert found.parts > 1
    assert 5 < found.days < 100
