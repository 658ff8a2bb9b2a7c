"""Data: sources of examples, the order in which training visits them, and random changes to a batch.

This is no `torch.utils.data.DataLoader`: that one is an iterator whose place in an epoch and whose random
state cannot be saved and asked for again. Here the batch of any step can be computed from (seed, step) alone,
each process takes its share of it by rank, and so a resumed run goes on bit for bit, on any number of
processes.
"""

from scorefield.data.as_source import TrainingData, as_source
from scorefield.data.base import Batches, Microbatch, Share, Source
from scorefield.data.dataset import Dataset, tensor
from scorefield.data.loading.epoch_order import EpochBatches, EpochOrder
from scorefield.data.loading.prefetch import Prefetcher
from scorefield.data.sources.digits import digits
from scorefield.data.sources.folder import folder
from scorefield.data.sources.hub import hf, stream
from scorefield.data.sources.npz import npz
from scorefield.data.sources.parse import open_source
from scorefield.data.sources.portraits import portraits
from scorefield.data.sources.stream import Stream, StreamOrder
from scorefield.data.sources.torch_dataset import TorchDataset, torch_dataset
from scorefield.data.sources.toys import toy
from scorefield.data.transforms import dequantize, flip, reduced, shift

__all__ = [
    "Batches",
    "Dataset",
    "EpochBatches",
    "EpochOrder",
    "Microbatch",
    "Prefetcher",
    "Share",
    "Source",
    "Stream",
    "StreamOrder",
    "TorchDataset",
    "TrainingData",
    "as_source",
    "dequantize",
    "digits",
    "flip",
    "folder",
    "hf",
    "npz",
    "open_source",
    "portraits",
    "reduced",
    "shift",
    "stream",
    "tensor",
    "torch_dataset",
    "toy",
]
