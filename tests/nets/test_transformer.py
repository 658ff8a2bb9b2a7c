"""The transformer: its numbers by NumPy and by diffusers' port of DiT, its positions, its options, its errors."""

import math
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from scorefield.nets import Transformer
from scorefield.nets.transformer import grid_embedding, rotary_angles, turned
from scorefield.runtime.errors import InputError

SEED = 7
SMALL: dict[str, Any] = {"patch": 2, "hidden": 16, "depth": 2, "heads": 2}
MODERN: dict[str, Any] = {"bottleneck": 5, "positions": "rotary", "norm": "rms", "mlp": "swiglu"}


def random_net(**options: Any) -> Transformer:
    """A network in float64 with no parameter at zero."""
    torch.manual_seed(SEED)
    net = Transformer(3, 8, **SMALL | options).double().eval()
    for parameter in net.parameters():
        nn.init.normal_(parameter, std=0.3)
    return net


# By NumPy, one token at a time


def norm_of(x: np.ndarray) -> np.ndarray:
    return (x - x.mean()) / math.sqrt(x.var() + 1e-6)


def silu(x: np.ndarray) -> np.ndarray:
    return x / (1 + np.exp(-x))


def gelu(x: np.ndarray) -> np.ndarray:
    return 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


def rms_of(x: np.ndarray, weight: np.ndarray) -> np.ndarray:
    return weight * x / math.sqrt((x**2).mean() + 1e-6)


def by_numpy(net: Transformer, image: np.ndarray, c: float, y: int, *, modern: bool) -> np.ndarray:
    """F(x, c, y) of one image (3, 8, 8), with loops over tokens and heads."""
    p = {name: value.numpy() for name, value in net.state_dict().items()}

    def linear(name: str, x: np.ndarray) -> np.ndarray:
        return p[f"{name}.weight"] @ x + p[f"{name}.bias"]

    def normed(name: str, x: np.ndarray) -> np.ndarray:
        return rms_of(x, p[f"{name}.weight"]) if modern else norm_of(x)

    def perceptron(name: str, x: np.ndarray) -> np.ndarray:
        if not modern:
            return linear(f"{name}.fc2", gelu(linear(f"{name}.fc1", x)))
        gate, value = np.split(linear(f"{name}.w12", x), 2)
        return linear(f"{name}.w3", silu(gate) * value)

    def turn(x: np.ndarray, row: int, column: int) -> np.ndarray:
        out, pairs = x.copy(), len(x) // 2
        for i in range(pairs):
            place = row if i < pairs // 2 else column
            angle = place * 10_000.0 ** (-2 * (i % (pairs // 2)) / pairs)
            z = complex(x[i], x[i + pairs]) * complex(math.cos(angle), math.sin(angle))
            out[i], out[i + pairs] = z.real, z.imag
        return out

    angles = [c * 10_000.0 ** (-i / 128) for i in range(128)]
    embedding = np.array([*map(math.cos, angles), *map(math.sin, angles)])
    emb = linear("t_embedder.mlp.2", silu(linear("t_embedder.mlp.0", embedding)))
    emb = silu(emb + p["y_embedder.embedding_table.weight"][y])
    places = [(row, column) for row in range(4) for column in range(4)]
    tokens = []
    for index, (row, column) in enumerate(places):
        pixels = image[:, 2 * row : 2 * row + 2, 2 * column : 2 * column + 2]
        token = (p["x_embedder.proj.weight"] * pixels).sum(axis=(1, 2, 3))
        token = linear("x_embedder.expand", token) if modern else token + p["x_embedder.proj.bias"]
        tokens.append(token + p["pos_embed"][0, index])
    for i in range(2):
        block = f"blocks.{i}"
        shift1, scale1, gate1, shift2, scale2, gate2 = np.split(linear(f"{block}.adaLN_modulation.1", emb), 6)
        rows = [
            linear(f"{block}.attn.qkv", normed(f"{block}.norm1", h) * (1 + scale1) + shift1) for h in tokens
        ]
        q, k, v = (
            [[row[16 * part + 8 * head :][:8] for head in range(2)] for row in rows] for part in range(3)
        )
        if modern:
            for vectors, name in ((q, "q_norm"), (k, "k_norm")):
                weight = p[f"{block}.attn.{name}.weight"]
                for place, heads in zip(places, vectors, strict=True):
                    heads[:] = [turn(rms_of(x, weight), *place) for x in heads]
        for a in range(16):
            joined = []
            for head in range(2):
                logits = np.array([q[a][head] @ k[b][head] / math.sqrt(8) for b in range(16)])
                weights = np.exp(logits - logits.max())
                joined.append(sum(w * v[b][head] for b, w in enumerate(weights / weights.sum())))
            tokens[a] = tokens[a] + gate1 * linear(f"{block}.attn.proj", np.concatenate(joined))
        tokens = [
            h + gate2 * perceptron(f"{block}.mlp", normed(f"{block}.norm2", h) * (1 + scale2) + shift2)
            for h in tokens
        ]
    shift, scale = np.split(linear("final_layer.adaLN_modulation.1", emb), 2)
    result = np.zeros_like(image)
    for h, (row, column) in zip(tokens, places, strict=True):
        patch = linear("final_layer.linear", normed("final_layer.norm_final", h) * (1 + scale) + shift)
        result[:, 2 * row : 2 * row + 2, 2 * column : 2 * column + 2] = patch.reshape(2, 2, 3).transpose(
            2, 0, 1
        )
    return result


@pytest.mark.parametrize("modern", [False, True])
def test_the_numbers_are_those_of_the_equations(modern: bool) -> None:
    """[Peebles & Xie 2023, Sec. 3.2], and the options of [Li & He 2025]."""
    net = random_net(num_classes=3, null_label=True, **(MODERN if modern else {}))
    x = torch.randn(2, 3, 8, 8, dtype=torch.float64)
    c, y = torch.tensor([999.0, 0.25], dtype=torch.float64), torch.tensor([3, 1])
    with torch.no_grad():
        found = net(x, c, y)
    expected = [
        by_numpy(net, one.numpy(), float(a), int(b), modern=modern) for one, a, b in zip(x, c, y, strict=True)
    ]
    np.testing.assert_allclose(found.numpy(), np.stack(expected), rtol=1e-10, atol=1e-10)


def test_the_numbers_are_those_of_another_implementation() -> None:
    """At c = 0, since the frequencies of diffusers' embedding are not the original's."""
    diffusers = pytest.importorskip("diffusers")
    net = random_net(num_classes=3, null_label=True, out_channels=6)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        port = diffusers.DiTTransformer2DModel(
            num_attention_heads=2, attention_head_dim=8, in_channels=3, out_channels=6, num_layers=2,
            sample_size=8, patch_size=2, num_embeds_ada_norm=3, norm_eps=1e-6,
        ).double().eval()  # fmt: skip
    port.load_state_dict(renamed(net.state_dict()))
    port.pos_embed.pos_embed = net.get_buffer("pos_embed")  # diffusers centres it as the original, in float32
    x = torch.randn(2, 3, 8, 8, dtype=torch.float64)
    zero, y = torch.zeros(2, dtype=torch.int64), torch.tensor([2, 0])
    with torch.no_grad():
        torch.testing.assert_close(net(x, zero, y), port(x, zero, y).sample, rtol=1e-9, atol=1e-9)


def renamed(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The weights under diffusers' names."""
    found = {}
    for name, value in state.items():
        if name.startswith("x_embedder.proj"):
            found[name.replace("x_embedder", "pos_embed")] = value
        elif name.startswith("blocks."):
            block, rest = name.removeprefix("blocks.").split(".", 1)
            home = f"transformer_blocks.{block}"
            if rest.startswith("attn.qkv"):
                kind = rest.rpartition(".")[2]
                for part, word in zip(value.chunk(3), ("to_q", "to_k", "to_v"), strict=True):
                    found[f"{home}.attn1.{word}.{kind}"] = part
            else:
                for old, new in {
                    "attn.proj": "attn1.to_out.0",
                    "mlp.fc1": "ff.net.0.proj",
                    "mlp.fc2": "ff.net.2",
                    "adaLN_modulation.1": "norm1.linear",
                }.items():
                    rest = rest.replace(old, new)
                found[f"{home}.{rest}"] = value
        elif name.startswith("final_layer"):
            old = name.replace("final_layer.linear", "proj_out_2")
            found[old.replace("final_layer.adaLN_modulation.1", "proj_out_1")] = value
    embedders = {
        "t_embedder.mlp.0": "timestep_embedder.linear_1",
        "t_embedder.mlp.2": "timestep_embedder.linear_2",
        "y_embedder": "class_embedder",
    }
    for number in (0, 1):
        for name, value in state.items():
            for old, new in embedders.items():
                if name.startswith(old):
                    found[f"transformer_blocks.{number}.norm1.emb.{name.replace(old, new)}"] = value
    return found


def test_published_weights_have_these_names() -> None:
    """Those of DiT's checkpoints."""
    names = set(Transformer(3, 8, num_classes=3, null_label=True, **SMALL | {"depth": 1}).state_dict())
    both = [
        "x_embedder.proj",
        "t_embedder.mlp.0",
        "t_embedder.mlp.2",
        "blocks.0.attn.qkv",
        "blocks.0.attn.proj",
        "blocks.0.mlp.fc1",
        "blocks.0.mlp.fc2",
        "blocks.0.adaLN_modulation.1",
        "final_layer.linear",
        "final_layer.adaLN_modulation.1",
    ]
    single = {"pos_embed", "y_embedder.embedding_table.weight"}
    assert names == single | {f"{name}.{kind}" for name in both for kind in ("weight", "bias")}


def test_a_published_size() -> None:
    """DiT-XL/2 on 256 × 256: 675 M parameters without positions.  [Peebles & Xie 2023, Table 1]"""
    with torch.device("meta"):
        net = Transformer(4, 32, out_channels=8, hidden=1152, depth=28, heads=16, num_classes=1000, null_label=True)  # fmt: skip
    assert round(sum(p.numel() for p in net.parameters()) / 1e6) == 675


# Positions


def test_positions_by_hand() -> None:
    found = grid_embedding(8, 3)
    assert found.shape == (9, 8)
    row, column = 2, 1
    angles = [column, column * 10_000**-0.5, row, row * 10_000**-0.5]
    expected = [f(angles[i]) for i, f in [(0, math.sin), (1, math.sin), (0, math.cos), (1, math.cos)]]
    expected += [f(angles[i]) for i, f in [(2, math.sin), (3, math.sin), (2, math.cos), (3, math.cos)]]
    torch.testing.assert_close(found[3 * row + column], torch.tensor(expected))


def test_rotary_products_depend_on_differences_of_places_alone() -> None:
    torch.manual_seed(SEED)
    angles = rotary_angles(8, 5).double()
    q, k = torch.randn(2, 8, dtype=torch.float64)
    products = turned(q.expand(25, 8), angles) @ turned(k.expand(25, 8), angles).T
    by_difference: dict[tuple[int, int], list[float]] = {}
    for a in range(25):
        for b in range(25):
            by_difference.setdefault((a // 5 - b // 5, a % 5 - b % 5), []).append(float(products[a, b]))
    assert len({round(values[0], 6) for values in by_difference.values()}) > 50
    for values in by_difference.values():
        np.testing.assert_allclose(values, values[0], atol=1e-6)  # angles are float32


def test_learned_positions_start_as_the_fixed_ones_and_are_trained() -> None:
    fixed, learned = Transformer(3, 8, **SMALL), Transformer(3, 8, positions="learned", **SMALL)
    assert torch.equal(fixed.pos_embed, learned.pos_embed)
    assert "pos_embed" not in dict(fixed.named_parameters())
    assert "pos_embed" in dict(learned.named_parameters())


# Options and errors


def test_every_block_starts_as_the_identity() -> None:
    torch.manual_seed(SEED)
    net = Transformer(3, 8, **SMALL)
    h = torch.randn(2, 16, 16)
    emb = net.t_embedder(torch.tensor([3.0, 500.0]))
    for block in net.blocks:
        assert torch.equal(block(h, emb), h)
    assert not net(torch.randn(2, 3, 8, 8), torch.zeros(2)).any()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Transformer(3, 9, **SMALL), "patches of 2 × 2 do not divide images of 9 × 9"),
        (lambda: Transformer(3, 8, **SMALL | {"hidden": 20, "heads": 3}), "a multiple of 3 heads"),
        (lambda: Transformer(3, 8, **SMALL | {"hidden": 18, "heads": 3}), "and of 4"),
        (lambda: Transformer(3, 8, **SMALL | {"hidden": 12}, positions="rotary"), "6 a head"),
        (lambda: Transformer(3, 8, positions="rotray", **SMALL), "did you mean 'rotary'"),
        (lambda: Transformer(3, 8, norm="batch", **SMALL), "norm"),
        (lambda: Transformer(3, 8, mlp="relu", **SMALL), "mlp"),
        (lambda: Transformer(3, 8, null_label=True, **SMALL), "num_classes"),
        (lambda: Transformer(3, 8, mlp_ratio=0.0, **SMALL), "mlp_ratio"),
        (lambda: Transformer(3, 2**14, **SMALL | {"patch": 1}), "larger patches"),
        (lambda: Transformer(3, 8, **SMALL)(torch.zeros(1, 3, 8, 10), torch.zeros(1)), r"\(B, 3, 8, 8\)"),
        (lambda: Transformer(3, 8, **SMALL)(torch.zeros(1, 1, 8, 8), torch.zeros(1)), r"\(B, 3, 8, 8\)"),
    ],
)
def test_mistakes_are_explained(make: Callable[[], object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        make()
