"""Sharded training (FSDP2): sharding an objective, and gathering full tensors.

Every function that takes tensors takes whole ones too, and leaves them as they are. Where some are in pieces,
every process calls it, with the same tensors in the same order.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, TypeGuard

import torch
from torch import Tensor, nn

from scorefield.models.foreign import model_like
from scorefield.objectives.base import Objective
from scorefield.runtime.errors import InputError

if TYPE_CHECKING:
    from torch.distributed.tensor import DTensor

__all__ = ["all_finite", "full_tensors", "gather_full", "meta_copy", "shard_like", "shard_objective"]


def shard_objective(objective: Objective, world: int, device: torch.device) -> None:
    """Leave this process a 1/world of each weight; each block of the network is put together while it
    computes, and cut again.

    All begin with the weights of the first process. InputError for a weight without dimensions, which cannot
    be cut.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    if scalars := [name for name, weight in objective.named_parameters() if weight.ndim == 0]:
        raise InputError(
            f"{scalars[0]} is a parameter without dimensions, which cannot be sharded: give it shape (1,), or "
            "remove shard"
        )
    for tensor in [*objective.parameters(), *objective.buffers()]:
        torch.distributed.broadcast(tensor.detach(), 0)
    mesh = init_device_mesh(device.type, (world,))
    for piece in model_like(objective.model).network_blocks():
        if next(piece.parameters(), None) is not None:
            fully_shard(piece, mesh=mesh)
    fully_shard(objective, mesh=mesh)


def meta_copy(model: nn.Module) -> Any:
    """A copy of a model whose weights have shapes and no numbers, to be loaded with `assign=True`; its
    buffers are copied.
    """
    without = {
        id(weight): nn.Parameter(weight.detach().to("meta"), weight.requires_grad)
        for weight in model.parameters()
    }
    return copy.deepcopy(model, without)


def gather_full(tensor: Tensor) -> Tensor:
    """The tensor that these pieces are of."""
    return tensor.full_tensor() if _is_shard(tensor) else tensor


def full_tensors(tensors: Mapping[str, Tensor], keep: bool = True) -> dict[str, Tensor]:
    """The tensors that these pieces are of, put together one after another and kept on the CPU; whole tensors
    as they are.

    keep: whether this process is to have what lies in pieces.
    """
    found: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        if _is_shard(tensor):
            together = gather_full(tensor.detach())
            found |= {name: together.cpu()} if keep else {}
        else:
            found[name] = tensor
    return found


def shard_like(tensor: Tensor, like: Tensor) -> Tensor:
    """This process's piece of a whole tensor, cut as `like` is. Every process has the whole: nothing is sent."""
    if not _is_shard(like):
        return tensor
    from torch.distributed.tensor import distribute_tensor

    return distribute_tensor(tensor.to(like.device), like.device_mesh, like.placements, src_data_rank=None)


def all_finite(tensors: Iterable[Tensor]) -> bool:
    """Whether every number of every tensor is, on every process."""
    finite, cut_one = True, None
    for tensor in tensors:
        if _is_shard(tensor):
            cut_one = tensor
        finite = finite and bool(torch.isfinite(tensor.to_local() if _is_shard(tensor) else tensor).all())
    if cut_one is not None:
        vote = torch.tensor(int(finite), device=cut_one.device)
        torch.distributed.all_reduce(vote, torch.distributed.ReduceOp.MIN, cut_one.device_mesh.get_group())
        finite = bool(vote)
    return finite


def _is_shard(tensor: Tensor) -> TypeGuard[DTensor]:
    """Whether this is a piece; asked without the class, which not every build of torch has."""
    return hasattr(tensor, "full_tensor")
