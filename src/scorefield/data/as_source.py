"""Whatever `sf.train` is given, as a source."""

from __future__ import annotations

from torch import Tensor
from torch.utils.data import Dataset as MapDataset

from scorefield.data.base import Source
from scorefield.data.dataset import tensor
from scorefield.data.sources.torch_dataset import torch_dataset
from scorefield.runtime.checks import brief
from scorefield.runtime.errors import InputError

__all__ = ["TrainingData", "as_source"]

TrainingData = Source | Tensor | tuple[Tensor, Tensor] | MapDataset[object]


def as_source(data: TrainingData) -> Source:
    """The source that reads these data: a source itself, or tensors as continuous data in memory.

    Args:
        data: A source of `sf.data`, a tensor (N, *), a pair of examples (N, *) and labels (N,), or a
            map-style torch.utils.data.Dataset.

    Raises:
        InputError: For anything else.
    """
    if isinstance(data, MapDataset):
        return torch_dataset(data)
    if isinstance(data, Tensor):
        return tensor(data)
    if isinstance(data, tuple) and len(data) == 2 and all(isinstance(part, Tensor) for part in data):
        return tensor(*data)
    if isinstance(data, Source):
        return data
    raise InputError(
        f"data must be a source of sf.data, a tensor, a pair of tensors (examples, labels), or a map-style "
        f"torch.utils.data.Dataset; got {brief(data)} (sf.data.torch_dataset takes anything with "
        "__len__ and __getitem__)"
    )
