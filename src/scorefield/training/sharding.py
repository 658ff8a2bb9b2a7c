"""Weights in pieces, one for each process (FSDP2): what cuts them, and what puts them together where whole tensors are wanted.

Every function that takes tensors takes whole ones too, and leaves them as they are. Where some are in pieces, every process calls
it, with the same tensors in the same order.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor

from scorefield.core.errors import InputError
from scorefield.nets.blocks import pieces
from scorefield.objectives.base import Objective

__all__ = ["all_finite", "cut", "outline", "piece_of", "whole", "whole_ones"]


def cut(objective: Objective, world: int, device: torch.device) -> None:
    """Leave this process a 1/world of each weight; each block of the network is put together while it computes, and cut again.

    InputError for a loss with derivatives of the model in it: they would be taken while weights are in pieces.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    model: Any = objective.model
    if objective.differentiates:
        raise InputError(
            "a loss with derivatives of the model in it (sliced, implicit, of an energy) cannot be trained in pieces: leave shard out"
        )
    mesh = init_device_mesh(device.type, (world,))
    ours = hasattr(model.net, "spec")  # a network from elsewhere may use the weights of a block without calling it
    for piece in pieces(model.net) if ours else []:
        if next(piece.parameters(), None) is not None:
            fully_shard(piece, mesh=mesh)
    fully_shard(objective, mesh=mesh)


def outline(model: nn.Module) -> Any:
    """A copy of a model whose weights have shapes and no numbers, to be loaded with `assign=True`; its buffers are copied."""
    without = {id(weight): nn.Parameter(weight.detach().to("meta"), weight.requires_grad) for weight in model.parameters()}
    return copy.deepcopy(model, without)


def whole(tensor: Tensor) -> Tensor:
    """The tensor that these pieces are of."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def whole_ones(tensors: Mapping[str, Tensor], keep: bool = True) -> dict[str, Tensor]:
    """The tensors that these pieces are of, on the CPU, one after another. keep: whether this process is to have them."""
    found: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        if isinstance(tensor, DTensor):
            together = whole(tensor.detach())
            found |= {name: together.cpu()} if keep else {}
        else:
            found[name] = tensor
    return found


def piece_of(tensor: Tensor, like: Tensor) -> Tensor:
    """This process's piece of a whole tensor, cut as `like` is. Every process has the whole: nothing is sent."""
    if not isinstance(like, DTensor):
        return tensor
    return distribute_tensor(tensor.to(like.device), like.device_mesh, like.placements, src_data_rank=None)


def all_finite(tensors: Iterable[Tensor]) -> bool:
    """Whether every number of every tensor is, on every process."""
    finite, group = True, None
    for tensor in tensors:
        if isinstance(tensor, DTensor):
            group = tensor.device_mesh.get_group()
        finite = finite and bool(torch.isfinite(tensor.to_local() if isinstance(tensor, DTensor) else tensor).all())
    if group is not None:
        device = torch.device("cpu") if torch.distributed.get_backend(group) == "gloo" else torch.device("cuda")
        vote = torch.tensor(int(finite), device=device)
        torch.distributed.all_reduce(vote, torch.distributed.ReduceOp.MIN, group)
        finite = bool(vote)
    return finite
