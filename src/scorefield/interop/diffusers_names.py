"""Tensor names: this library's U-Nets to and from diffusers' UNet2DModel."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from itertools import count
from typing import NamedTuple

import torch
from torch import Tensor

from scorefield.interop.diffusers_unet import Structure

__all__ = ["from_diffusers", "modern_names", "to_diffusers"]

PLAIN, RESIDUAL, ATTENTION = "plain", "residual", "attention"
QKV = ("to_q", "to_k", "to_v")

# The parts of a layer, as this library calls them and as diffusers does.
Parts = Mapping[str, tuple[str, ...]]
PARTS: dict[str, dict[str, Parts]] = {
    "unet": {
        PLAIN: {"": ("",)},
        RESIDUAL: {
            "in_layers.0": ("norm1",),
            "in_layers.2": ("conv1",),
            "emb_layers.1": ("time_emb_proj",),
            "out_layers.0": ("norm2",),
            "out_layers.3": ("conv2",),
            "skip_connection": ("conv_shortcut",),
        },
        ATTENTION: {"norm": ("group_norm",), "qkv": QKV, "proj_out": ("to_out.0",)},
    },
    "ddpm-unet": {
        PLAIN: {"": ("",)},
        RESIDUAL: {
            "norm1": ("norm1",),
            "conv1": ("conv1",),
            "temb_proj": ("time_emb_proj",),
            "norm2": ("norm2",),
            "conv2": ("conv2",),
            "nin_shortcut": ("conv_shortcut",),
        },
        ATTENTION: {
            "norm": ("group_norm",),
            "q": QKV[:1],
            "k": QKV[1:2],
            "v": QKV[2:],
            "proj_out": ("to_out.0",),
        },
    },
}
# Weights saved before diffusers had its present attention layer.
OLD = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}


class Entry(NamedTuple):
    """One tensor of this library and the one, or the three of q, k and v, that diffusers has for it.

    linear: one by one pixel convolutions here are linear layers there.
    """

    ours: str
    theirs: tuple[str, ...]
    linear: bool


def to_diffusers(state: Mapping[str, Tensor], s: Structure, order: str) -> dict[str, Tensor]:
    """The state dict of a network of structure `s` under diffusers' names; `order` is that of its attention's
    channels.
    """
    renamed: dict[str, Tensor] = {}
    for entry in _entries(s, state):
        value = state[entry.ours]
        value = value.flatten(1) if entry.linear and value.ndim > 1 else value
        renamed.update(zip(entry.theirs, _split(value, len(entry.theirs), s, order), strict=True))
    return renamed


def from_diffusers(
    tensors: Mapping[str, Tensor], s: Structure, order: str, like: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """The inverse of `to_diffusers`; `like` is a state dict with this library's names and shapes."""
    return {
        entry.ours: _join([tensors[name] for name in entry.theirs], s, order).reshape(like[entry.ours].shape)
        for entry in _entries(s, like)
    }


def modern_names(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same tensors, with attention weights of old files under the names of new ones."""
    return {re.sub(r"(attentions\.\d+)\.(\w+)\.", _modern, name): value for name, value in tensors.items()}


def _modern(found: re.Match[str]) -> str:
    return f"{found[1]}.{OLD.get(found[2], found[2])}."


def _split(value: Tensor, parts: int, s: Structure, order: str) -> list[Tensor]:
    """The rows of q, k and v, each head by head, out of those of all three."""
    if parts == 1:
        return [value]
    if order == "new":
        return list(value.chunk(parts))
    by_head = value.reshape(_heads(len(value) // parts, s), parts, -1, *value.shape[1:])
    return [rows.flatten(0, 1) for rows in by_head.unbind(1)]


def _join(values: list[Tensor], s: Structure, order: str) -> Tensor:
    if len(values) == 1:
        return values[0]
    if order == "new":
        return torch.cat(values)
    heads = _heads(len(values[0]), s)
    return torch.stack([rows.reshape(heads, -1, *rows.shape[1:]) for rows in values], 1).flatten(0, 2)


def _heads(channels: int, s: Structure) -> int:
    return 1 if s.head_dim is None else channels // s.head_dim


def _entries(s: Structure, state: Mapping[str, Tensor]) -> list[Entry]:
    """Every tensor, by walking both networks in the order in which they compute."""
    entries = []
    for ours, (kind, theirs) in zip(OURS[s.kind](s), _theirs(s), strict=True):
        for part, counterparts in PARTS[s.kind][kind].items():
            for parameter in ("weight", "bias"):
                if (
                    name := _dotted(ours, part, parameter)
                ) in state:  # no shortcut where the channels stay, no bias of a table
                    there = tuple(_dotted(theirs, counterpart, parameter) for counterpart in counterparts)
                    entries.append(Entry(name, there, kind == ATTENTION))
    return entries


def _dotted(*names: str) -> str:
    return ".".join(name for name in names if name)


def _theirs(s: Structure) -> Iterator[tuple[str, str]]:
    """(kind, name) of diffusers' layers."""
    resample = (RESIDUAL, "0") if s.updown else (PLAIN, "0.conv")
    levels = list(enumerate(s.attends))
    yield from ((PLAIN, "time_embedding.linear_1"), (PLAIN, "time_embedding.linear_2"))
    yield from [(PLAIN, "class_embedding")] if s.rows else []
    yield PLAIN, "conv_in"
    for level, attends in levels:
        yield from _chain(f"down_blocks.{level}", s.blocks, attends)
        if level < len(levels) - 1:
            yield resample[0], f"down_blocks.{level}.downsamplers.{resample[1]}"
    yield from (
        (RESIDUAL, "mid_block.resnets.0"),
        (ATTENTION, "mid_block.attentions.0"),
        (RESIDUAL, "mid_block.resnets.1"),
    )
    for place, (level, attends) in enumerate(reversed(levels)):
        yield from _chain(f"up_blocks.{place}", s.blocks + 1, attends)
        if level:
            yield resample[0], f"up_blocks.{place}.upsamplers.{resample[1]}"
    yield from ((PLAIN, "conv_norm_out"), (PLAIN, "conv_out"))


def _chain(prefix: str, blocks: int, attends: bool) -> Iterator[tuple[str, str]]:
    for block in range(blocks):
        yield RESIDUAL, f"{prefix}.resnets.{block}"
        if attends:
            yield ATTENTION, f"{prefix}.attentions.{block}"


def _unet(s: Structure) -> Iterator[str]:
    """The layers of `UNet`, whose stages are numbered through."""
    last = len(s.widths) - 1
    yield from ("time_embed.0", "time_embed.2", *(["label_emb"] if s.rows else []), "input_blocks.0.0")
    stage = count(1)
    for level, attends in enumerate(s.attends):
        for _ in range(s.blocks):
            yield from _layers(f"input_blocks.{next(stage)}", 1 + attends)
        if level < last:
            yield f"input_blocks.{next(stage)}.0" + ("" if s.updown else ".op")
    yield from _layers("middle_block", 3)
    stage = count()
    for level, attends in reversed(list(enumerate(s.attends))):
        for block in range(s.blocks + 1):
            prefix = f"output_blocks.{next(stage)}"
            yield from _layers(prefix, 1 + attends)
            if level and block == s.blocks:
                yield f"{prefix}.{1 + attends}" + ("" if s.updown else ".conv")
    yield from ("out.0", "out.2")


def _layers(stage: str, layers: int) -> list[str]:
    return [f"{stage}.{layer}" for layer in range(layers)]


def _ddpm_unet(s: Structure) -> Iterator[str]:
    """The layers of `DDPMUNet`, whose levels are numbered from the full resolution on both ways."""
    levels = list(enumerate(s.attends))
    yield from ("temb.dense.0", "temb.dense.1", "conv_in")
    for level, attends in levels:
        yield from _blocks(f"down.{level}", s.blocks, attends)
        yield from [f"down.{level}.downsample.conv"] if level < len(levels) - 1 else []
    yield from ("mid.block_1", "mid.attn_1", "mid.block_2")
    for level, attends in reversed(levels):
        yield from _blocks(f"up.{level}", s.blocks + 1, attends)
        yield from [f"up.{level}.upsample.conv"] if level else []
    yield from ("norm_out", "conv_out")


def _blocks(level: str, blocks: int, attends: bool) -> Iterator[str]:
    for block in range(blocks):
        yield f"{level}.block.{block}"
        yield from [f"{level}.attn.{block}"] if attends else []


OURS: dict[str, Callable[[Structure], Iterator[str]]] = {"unet": _unet, "ddpm-unet": _ddpm_unet}
