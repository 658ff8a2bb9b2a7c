"""The compiled normalization against the plain formula in float64: values, gradients, further derivatives,
and when it steps aside.
"""

import copy
import functools
import itertools
import os

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from scorefield.nets import fused
from scorefield.nets.attention import AttentionBlock
from scorefield.nets.blocks import Norm
from scorefield.runs.build import (
    build_model,
    build_net,
    build_process,
    expected_data,
    read_recipe,
    recipe_names,
)

pytest.importorskip("numba", reason="the compiled loops need numba")
kernels = pytest.importorskip("scorefield.nets.numba_kernels")

TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 2e-2}
SHAPES = [(3, 32, 8, 8), (2, 64, 7, 5), (1, 96, 1, 1), (2, 32, 3, 1), (4, 128, 4, 4), (1, 192, 16, 16)]


def images(shape, dtype, mean=0.0, seed=0):
    x = torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * 2 + mean
    return x.to(dtype).contiguous(memory_format=torch.channels_last)


def reference(x, weight, bias, modulation, silu, groups=32):
    """In float64, from the definition: groups of channels and all pixels."""
    grouped = x.unflatten(1, (groups, -1))
    mean, var = grouped.mean((2, 3, 4), keepdim=True), grouped.var((2, 3, 4), correction=0, keepdim=True)
    h = ((grouped - mean) / (var + 1e-5).sqrt()).flatten(1, 2) * weight[:, None, None] + bias[:, None, None]
    if modulation is not None:
        scale, shift = modulation[..., None, None].chunk(2, dim=1)
        h = h * (1 + scale) + shift
    return h * torch.sigmoid(h) if silu else h


def error(actual, expected):
    """The largest error, relative to the largest magnitude."""
    return float((actual.double() - expected).abs().max() / expected.abs().max().clamp_min(1e-3))


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("groups", [32, 4])
@pytest.mark.parametrize(
    ("shape", "modulated", "silu"), list(itertools.product(SHAPES, (True, False), (True, False)))
)
def test_values_and_gradients(shape, modulated, silu, groups, dtype):
    x, dy = images(shape, dtype, mean=0.5), images(shape, dtype, seed=1)
    channels = shape[1]
    weight, bias = 1 + 0.3 * torch.randn(channels), 0.3 * torch.randn(channels)
    modulation = 0.5 * torch.randn(shape[0], 2 * channels) if modulated else None
    parts = [
        part.detach().clone().requires_grad_() for part in (x, weight, bias, modulation) if part is not None
    ]
    exact = [part.detach().double().requires_grad_() for part in parts]
    assert fused.is_fused(parts[0])
    y = fused.fused_norm(parts[0], groups, *parts[1:3], 1e-5, parts[3] if modulated else None, silu)  # type: ignore[arg-type, call-arg]
    expected = reference(*exact[:3], exact[3] if modulated else None, silu, groups)  # type: ignore[call-arg]
    assert (y.dtype, y.stride()) == (x.dtype, x.stride())
    assert error(y.detach(), expected.detach()) < TOLERANCE[dtype]
    if shape[2:] == (1, 1) and channels == groups:
        return  # every group is one number: the gradient vanishes
    y.backward(dy)
    expected.backward(dy.double())
    for part, true in zip(parts, exact, strict=True):
        assert part.grad.dtype == part.dtype
        assert error(part.grad, true.grad) < TOLERANCE[dtype]


@pytest.mark.parametrize("dtype", [np.float32, np.uint16])
def test_compiled_loops_do_what_they_say_in_python(dtype):
    """The same source, interpreted: neither the compiler's reordering nor its threads may show beyond
    rounding.
    """
    rng = np.random.default_rng(0)
    x, dy, modulation = (
        rng.standard_normal(shape).astype(np.float32) for shape in ((2, 5, 32), (2, 5, 32), (2, 2, 32))
    )
    if dtype == np.uint16:
        x, dy, modulation = ((part.view(np.uint32) >> 16).astype(np.uint16) for part in (x, dy, modulation))  # type: ignore[assignment]
    weight, bias = (rng.standard_normal(32).astype(np.float32) for _ in range(2))
    kind, shape = kernels.BF16 if dtype == np.uint16 else kernels.FLOAT32, x.shape

    def compiled(y, stats, dx, dweights, dmodulation):
        """By addresses, as networks call the loops: other calls would be compiled for this test alone."""
        given = [part.ctypes.data for part in (weight, bias, modulation)]
        outputs = [part.ctypes.data for part in (stats, dx, dweights, dmodulation)]
        kernels.forward_at(
            kind, shape, 32, 1e-5, True, True, x.ctypes.data, *given, y.ctypes.data, outputs[0]
        )
        kernels.backward_at(kind, shape, 32, True, True, x.ctypes.data, dy.ctypes.data, *given, *outputs)

    def interpreted(y, stats, dx, dweights, dmodulation):
        kernels.norm_forward.py_func(x, weight, bias, modulation, 32, 1e-5, True, y, *stats)
        kernels.norm_backward.py_func(
            x, dy, weight, bias, modulation, 32, True, *stats, dx, *dweights, dmodulation
        )

    results = []
    for run in (compiled, interpreted):
        y, dx, dmodulation = np.zeros_like(x), np.zeros_like(x), np.zeros_like(modulation)
        stats, dweights = np.zeros((2, 2, 32), np.float32), np.zeros((2, 32), np.float32)
        run(y, stats, dx, dweights, dmodulation)
        wide = [
            (part.astype(np.uint32) << 16).view(np.float32) if dtype == np.uint16 else part
            for part in (y, dx, dmodulation)
        ]
        results.append([*wide, stats, dweights])
    tolerance = 1e-5 if dtype == np.float32 else 2**-7  # one unit of bf16's last place
    for fast, plain in zip(*results, strict=True):
        assert np.abs(fast).max() > 0
        assert np.allclose(fast, plain, rtol=tolerance, atol=tolerance)


def test_digits_are_kept_where_the_mean_is_large():
    x = images((2, 64, 9, 9), torch.float32, mean=1000.0)
    y = fused.fused_norm(x, 32, torch.ones(64), torch.zeros(64), 1e-5, None, False)
    exact = reference(x.double(), torch.ones(64).double(), torch.zeros(64).double(), None, False)
    assert error(y, exact) < 1e-4  # x itself is rounded to 6e-5 of its spread
    assert (y.double() - exact).abs().max() < 2e-4


def test_extreme_and_diverged_activations():
    """SiLU is exact far from 0, and what is not finite stays visible."""
    x = images((2, 32, 4, 4), torch.float32)
    far = torch.full((2, 64), -1.0)
    far[:, 32:] = torch.linspace(-200, 200, 32)
    y = fused.fused_norm(x, 32, torch.ones(32), torch.zeros(32), 1e-5, far, True)
    torch.testing.assert_close(
        y[:, :, 0, 0], F.silu(torch.linspace(-200, 200, 32)).expand(2, 32), rtol=2e-6, atol=1e-30
    )
    x[0, 0, 0, 0] = float("nan")
    y = fused.fused_norm(x, 32, torch.ones(32), torch.zeros(32), 1e-5, None, True)
    assert y[0, 0].isnan().all()
    assert y[1].isfinite().all()


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("bits", [0x7FC00000, 0x7FFFFFFF, -1])
@pytest.mark.parametrize("where", ["weight", "bias"])
def test_no_kind_of_nan_is_rounded_away(where, bits, dtype):
    """CUDA's NaN is 0x7FFFFFFF: rounded up it would be −0."""
    x = images((2, 32, 4, 4), dtype).requires_grad_()
    weight, bias = torch.ones(32), torch.zeros(32)
    {"weight": weight, "bias": bias}[where].view(torch.int32)[3] = bits
    modulation = torch.zeros(2, 64, requires_grad=True)
    y = fused.fused_norm(x, 32, weight, bias, 1e-5, modulation, True)
    assert y[:, 3].isnan().all()
    assert y[:, :3].isfinite().all()
    y.sum().backward()
    assert x.grad[:, 3].isnan().all()
    assert modulation.grad[:, 3].isnan().all()


def test_second_derivatives_are_those_of_the_formula():
    x = images((2, 32, 3, 3), torch.float32).requires_grad_()
    weight, bias = torch.randn(32, requires_grad=True), torch.randn(32, requires_grad=True)
    modulation = torch.randn(2, 64, requires_grad=True)

    def norm_of_gradient(norm):
        (first,) = torch.autograd.grad(
            norm(x, 32, weight, bias, 1e-5, modulation, True).pow(3).sum(), x, create_graph=True
        )
        return torch.autograd.grad(first.square().sum(), (x, weight, modulation))

    for mine, plain in zip(
        norm_of_gradient(fused.fused_norm), norm_of_gradient(fused.plain_norm), strict=True
    ):
        torch.testing.assert_close(mine, plain, rtol=1e-4, atol=1e-4)


def test_it_steps_aside():
    """Double precision, transformations of torch.func, forward mode, a switch, a missing numba: the formula,
    in memory as it was.
    """
    x = images((1, 32, 4, 4), torch.float32)
    assert fused.is_fused(x)
    assert not fused.is_fused(x.double())
    assert fused.to_layout(x.double().contiguous()).is_contiguous()
    seen = []
    torch.func.vmap(lambda z: seen.append(fused.is_fused(z)) or z)(x[None])
    torch.func.jvp(lambda z: seen.append(fused.is_fused(z)) or z, (x,), (x,))
    with torch.autograd.forward_ad.dual_level():
        seen.append(fused.is_fused(torch.autograd.forward_ad.make_dual(x, x)))
    assert seen == [False, False, False]
    try:
        fused.switch(False)
        assert not fused.is_fused(x)
        assert fused.to_layout(x.contiguous()).is_contiguous()
    finally:
        fused.switch(True)


def test_without_numba_the_formula_serves(monkeypatch):
    norm, x = Norm(32), images((2, 32, 4, 4), torch.float32)
    expected = norm(x)
    monkeypatch.setattr(fused, "available", lambda: False)
    torch.testing.assert_close(norm(x), expected, rtol=1e-5, atol=1e-5)
    assert not fused.is_fused(x)


@pytest.mark.parametrize(("said", "compiles"), [("0", True), ("1", False)])
def test_where_numba_may_not_compile_the_formula_serves(monkeypatch, said, compiles):
    monkeypatch.setenv("NUMBA_DISABLE_JIT", said)
    assert fused.available.__wrapped__() == compiles


def test_what_is_converted_for_the_loops_lives_until_they_are_done():
    """Weights in bf16 and a modulation in fp32 are read as copies; other tensors of that size are made
    meanwhile.
    """
    x = images((4, 64, 16, 16), torch.bfloat16).requires_grad_()
    weight, bias = torch.randn(2, 64).bfloat16().unbind()
    modulation = (0.5 * torch.randn(4, 128)).requires_grad_()
    parts = (x, weight.requires_grad_(), bias.requires_grad_(), modulation)
    exact = [part.detach().double().requires_grad_() for part in parts]
    y, expected = fused.fused_norm(x, 32, weight, bias, 1e-5, modulation, True), reference(*exact, True)  # type: ignore[call-arg]
    assert error(y.detach(), expected.detach()) < TOLERANCE[torch.bfloat16]
    dy = images((4, 64, 16, 16), torch.bfloat16, seed=1)
    y.backward(dy)
    expected.backward(dy.double())
    for part, true in zip(parts, exact, strict=True):
        assert part.grad.dtype == part.dtype
        assert error(part.grad, true.grad) < TOLERANCE[torch.bfloat16]


def test_threads_stay_as_they_were():
    before = torch.get_num_threads()
    Norm(32)(images((2, 32, 4, 4), torch.float32))
    assert torch.get_num_threads() == before


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_a_forked_process_uses_the_formula():
    """It only asks: a process that was forked off has none of torch's own threads either, and may wait for
    them for ever.
    """
    x = images((2, 32, 4, 4), torch.float32)
    Norm(32)(x)  # starts the loops' threads
    pid = os.fork()
    if pid == 0:
        os._exit(fused.is_fused(x))
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert fused.is_fused(x)


@pytest.mark.parametrize("order", ["legacy", "new"])
@pytest.mark.parametrize("pixels", [(4, 4), (3, 5), (12, 12)])
def test_attention_in_either_layout(order, pixels):
    block = AttentionBlock(64, 4, order)
    torch.nn.init.normal_(block.proj_out.weight, std=0.1)
    x = images((2, 64, *pixels), torch.float32)
    exact = copy.deepcopy(block).double()(x.double())
    assert fused.is_fused(x)
    assert error(block(x).detach(), exact.detach()) < 1e-5
    with torch.no_grad():  # the fused kernel
        assert error(block(x), exact.detach()) < 1e-5


def norms_of(recipe):
    """(channels, height, width, modulated, silu) of every normalization in one pass of the recipe's network,
    on the meta device.
    """
    spec, process, found = expected_data(recipe), build_process(recipe), set()

    def noted(norm, x, modulation=None):
        found.add((*x.shape[1:], modulation is not None, norm.silu))
        return x

    with torch.device("meta"):
        net = build_net(recipe, spec, process)
        for module in net.modules():
            if isinstance(module, Norm):  # in its place: the result has the shape of x
                module.forward = functools.partial(noted, module)
        if found_norms(net):
            labels = {"y": torch.zeros(1, dtype=torch.int64)} if getattr(net, "num_classes", 0) else {}
            side = recipe.model.low_res
            extra = {} if side is None else {"low_res": torch.zeros(1, spec.shape[0], side, side)}
            net(torch.zeros(1, net.in_channels, *spec.shape[1:]), torch.ones(1), **labels, **extra)  # type: ignore[call-overload]
    return {shape for shape in found if len(shape) == 5}


def found_norms(model):
    return any(isinstance(module, Norm) for module in model.modules())


def test_all_shapes_of_all_recipes():
    """Every normalization that a recipe's network makes, on one example; images of more than 2**16 numbers
    at fewer pixels.
    """
    shapes = set().union(*(norms_of(read_recipe(name)) for name in recipe_names()))
    assert len(shapes) > 60
    generator = torch.Generator().manual_seed(0)
    for channels, height, width, modulated, silu in sorted(shapes):
        while channels * height * width > 2**16:
            height, width = height // 2, width // 2
        for dtype, tolerance in TOLERANCE.items():
            x = images((1, channels, height, width), dtype).requires_grad_()
            weight, bias = torch.ones(channels, requires_grad=True), torch.zeros(channels, requires_grad=True)
            modulation = 0.5 * torch.randn(1, 2 * channels, generator=generator) if modulated else None
            exact = [part.detach().double().requires_grad_() for part in (x, weight, bias)]
            y = fused.fused_norm(x, 32, weight, bias, 1e-5, modulation, silu)
            true = reference(*exact, None if modulation is None else modulation.double(), silu)  # type: ignore[call-arg]
            assert error(y.detach(), true.detach()) < tolerance
            dy = images((1, channels, height, width), dtype, seed=1)
            y.backward(dy)
            true.backward(dy.double())
            for part, other in zip((x, weight, bias), exact, strict=True):
                assert error(part.grad, other.grad) < tolerance


SMALL = [
    name
    for name in recipe_names()
    if name.startswith(("digits", "mnist")) and "net" in read_recipe(name).model_dump()
]


@pytest.mark.parametrize("name", SMALL)
def test_whole_networks(name):
    """The loss of a whole recipe and its gradient, in fp32 and in bf16, against float64 and the plain
    formulas.
    """
    recipe = read_recipe(name)
    spec = expected_data(recipe)
    torch.manual_seed(0)
    model = build_model(recipe, spec)
    if not found_norms(model):
        pytest.skip("no group normalization in this network")
    for parameter in model.parameters():  # the last layers start at zero, and would hide the rest
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.02)
    x = torch.randn(4, model.net.in_channels, *spec.shape[1:])  # type: ignore[attr-defined]
    c = torch.tensor([1.0, 50.0, 500.0, 900.0])
    labels = {"y": torch.arange(4)} if getattr(model.net, "num_classes", 0) else {}
    side = recipe.model.low_res
    extra = {} if side is None else {"low_res": torch.randn(4, spec.shape[0], side, side)}

    def run(dtype):
        net = copy.deepcopy(model.net).double() if dtype is None else model.net  # type: ignore[attr-defined]
        net.zero_grad()
        given = {key: value.double() for key, value in extra.items()} if dtype is None else extra
        with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
            out = net(x if dtype else x.double(), c, **labels, **given)
        target = torch.randn(out.shape, generator=torch.Generator().manual_seed(1))
        (out.double() * target).mean().backward()
        return out.detach(), torch.cat(
            [p.grad.flatten().double() for p in net.parameters() if p.grad is not None]
        )

    out, gradient = run(None)
    for dtype, tolerance in TOLERANCE.items():
        mine, its = run(dtype)
        assert error(mine, out) < tolerance
        assert error(its, gradient) < tolerance
