"""Memory of a training step, estimated with fake tensors."""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from scorefield.core.shapes import DataSpec
from scorefield.models.network_model import ModelBase
from scorefield.nets import fused
from scorefield.runs.build import Recipe, build_net, build_process, meta_model
from scorefield.runtime.bounds import COUNT
from scorefield.runtime.checks import instance_of, one_of, positive_int

__all__ = ["largest_block", "step_memory"]


def step_memory(
    recipe: Recipe, spec: DataSpec, batch: int, dtype: torch.dtype | None, kind: str = "cpu"
) -> int:
    """The most bytes that one step of training takes at a time beyond weights, optimizer and average; its
    gradients included.

    The network runs forward and back on tensors without numbers, and every tensor counts from when it is made
    until nothing refers to it. What a library's kernels take inside one operation is not seen.

    Args:
        recipe: What is trained.
        spec: What one example is.
        batch: Examples at once.
        dtype: Of autocast, None for float32.
        kind: "cpu", or "cuda" or "mps", where normalization is not fused and keeps float32; attention counts as the
            CPU's, which keeps its weights.

    Raises:
        InputError: For arguments of another kind.
    """
    instance_of("recipe", recipe, Recipe, "a sf.Recipe")
    instance_of("spec", spec, DataSpec, "a sf.DataSpec")
    positive_int("batch", batch, at_most=COUNT)
    if dtype is not None:
        instance_of("dtype", dtype, torch.dtype, "a torch.dtype, or None for float32")
    one_of("kind", kind, ("cpu", "cuda", "mps"))
    inputs, process = meta_model(recipe, spec).network_inputs(batch), build_process(recipe)
    autocast: AbstractContextManager[Any] = nullcontext() if dtype is None else torch.autocast("cpu", dtype)
    with FakeTensorMode():
        net = build_net(recipe, spec, process).train()
        with _as_on(kind, net), _Live(net.state_dict().values()) as live:
            with autocast:
                output = inputs.call(net, "cpu")
            output.float().square().mean().backward()
    return live.most


@contextmanager
def _as_on(kind: str, net: nn.Module) -> Iterator[None]:
    """On a GPU normalization has no compiled loops, and autocast computes it in float32."""
    if kind == "cpu":
        yield
        return
    for module in net.modules():
        if isinstance(module, nn.GroupNorm):
            module.register_forward_pre_hook(lambda _, given: (given[0].float(), *given[1:]))
    fused.switch(False)
    try:
        yield
    finally:
        fused.switch(True)


class _Live(TorchDispatchMode):
    """The bytes of the tensors alive that were made inside, now and at most.

    Args:
        before: Tensors that do not count, nor do views of them.
    """

    def __init__(self, before: Iterable[Tensor]) -> None:
        super().__init__()
        self.now, self.most = 0, 0
        self._known = {tensor.untyped_storage()._cdata for tensor in before}

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor) and leaf.untyped_storage()._cdata not in self._known:
                self._add(leaf.untyped_storage())
        self.most = max(self.most, self.now)
        return result

    def _add(self, storage: torch.UntypedStorage) -> None:
        key, size = storage._cdata, storage.nbytes()
        self._known.add(key)
        self.now += size
        weakref.finalize(storage, self._remove, key, size)

    def _remove(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.now -= size


def largest_block(model: ModelBase) -> int:
    """Bytes of the largest piece of a network that is put together at a time."""
    blocks = model.network_blocks()
    return max(
        (sum(parameter.numel() * 4 for parameter in block.parameters()) for block in blocks), default=0
    )
