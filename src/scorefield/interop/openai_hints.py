"""Flags of guided-diffusion and improved-diffusion, inferred from names and shapes of a checkpoint."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby

from scorefield.interop.fit import Hints, Shapes, count

__all__ = ["classifier_details", "classifier_hints", "unet_details", "unet_hints"]


def unet_hints(sizes: Mapping[int, Sequence[float]]) -> Hints:
    """Of a U-Net. sizes: image_size -> the multipliers that follow from it."""
    known = {_comma(multipliers): size for size, multipliers in sizes.items()}

    def channel_mult(shapes: Shapes) -> str:
        text = _comma(_multipliers(shapes))
        return f"{text} (that of image_size {known[text]})" if text in known else text

    return {
        "the kind": _kind,
        "num_channels": lambda s: str(s["time_embed.0.weight"][1]),
        "num_res_blocks": lambda s: str(_blocks(s)),
        "channel_mult": channel_mult,
        "class_cond": lambda s: _yes("label_emb.weight" in s),
        "learn_sigma": lambda s: {3: "false", 6: "true"}[s["out.2.weight"][0]],
        "use_scale_shift_norm": _scale_shift,
        "resblock_updown": lambda s: _yes(not _resamples_by_convolution(s)),
    }


def unet_details(size: int) -> Hints:
    """Of a U-Net for images of this size."""
    return {
        "attention_resolutions": lambda s: (
            _comma(
                size // 2**level
                for level in range(_levels(s))
                if f"input_blocks.{_first(s, level)}.1.qkv.weight" in s
            )
            or "empty"
        )
    }


def classifier_hints() -> Hints:
    """Of a classifier."""
    return {
        "the kind": _kind,
        "classifier_width": lambda s: str(s["time_embed.0.weight"][1]),
        "classifier_pool": _pool,
        "classifier_use_scale_shift_norm": _scale_shift,
        "classifier_resblock_updown": lambda s: _yes(not _resamples_by_convolution(s)),
        "what classifier_depth and image_size make, the channels of its stages,": _stages,
    }


def classifier_details() -> Hints:
    return {
        "what classifier_attention_resolutions make, the stages with attention,": lambda s: (
            _comma(
                i for i in range(count(s, r"input_blocks\.(\d+)\.")) if f"input_blocks.{i}.1.qkv.weight" in s
            )
            or "none"
        )
    }


def _kind(shapes: Shapes) -> str:
    if "output_blocks.0.0.in_layers.0.weight" not in shapes:
        return "a classifier"
    return (
        "a model of images"
        if shapes["input_blocks.0.0.weight"][1] == 3
        else "an upsampler (large_size, small_size)"
    )


def _levels(shapes: Shapes) -> int:
    """One more than the stages on the way up that end in up-sampling: a residual block or a convolution after
    the first layer.
    """
    up = {name.split(".")[1] for name in shapes if name.startswith("output_blocks.") and _upsamples(name)}
    return 1 + len(up)


def _upsamples(name: str) -> bool:
    _, _, place, layer, *_ = name.split(".")
    return place != "0" and layer in ("conv", "in_layers")


def _blocks(shapes: Shapes) -> int:
    return count(shapes, r"input_blocks\.(\d+)\.") // _levels(shapes) - 1


def _first(shapes: Shapes, level: int) -> int:
    """The first stage of a level on the way down."""
    return 1 + level * (_blocks(shapes) + 1)


def _multipliers(shapes: Shapes) -> list[float]:
    channels = shapes["time_embed.0.weight"][1]
    widths = [
        shapes[f"input_blocks.{_first(shapes, level)}.0.in_layers.2.weight"][0]
        for level in range(_levels(shapes))
    ]
    return [width / channels for width in widths]


def _scale_shift(shapes: Shapes) -> str:
    block = "input_blocks.1.0"
    return _yes(shapes[f"{block}.emb_layers.1.weight"][0] == 2 * shapes[f"{block}.in_layers.2.weight"][0])


def _resamples_by_convolution(shapes: Shapes) -> bool:
    return any(name.endswith(".0.op.weight") for name in shapes)


def _pool(shapes: Shapes) -> str:
    if "out.2.positional_embedding" in shapes:
        return "attention"
    if "out.3.weight" not in shapes:
        return "spatial"
    return "adaptive" if len(shapes["out.3.weight"]) == 4 else "spatial_v2"


def _stages(shapes: Shapes) -> str:
    """Such as 128 × 3, 256 × 3: the residual stages on the way down."""
    stages = range(1, count(shapes, r"input_blocks\.(\d+)\."))
    widths = [shapes[name][0] for i in stages if (name := f"input_blocks.{i}.0.in_layers.2.weight") in shapes]
    return ", ".join(f"{width} × {len(list(same))}" for width, same in groupby(widths))


def _yes(value: bool) -> str:
    return "true" if value else "false"


def _comma(values: Iterable[float]) -> str:
    return ",".join(f"{value:g}" for value in values)
