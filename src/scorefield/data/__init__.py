"""Data: sources of examples, the order in which training visits them, and random changes to a batch."""

from scorefield.data.dataset import Dataset, tensor
from scorefield.data.loading.epoch_order import EpochOrder
from scorefield.data.loading.prefetch import Microbatch, Prefetcher
from scorefield.data.sources.digits import digits
from scorefield.data.sources.folder import folder
from scorefield.data.sources.hub import hf, stream
from scorefield.data.sources.npz import npz
from scorefield.data.sources.parse import open_source
from scorefield.data.sources.portraits import portraits
from scorefield.data.sources.stream import Stream, StreamOrder
from scorefield.data.sources.toys import toy
from scorefield.data.transforms import dequantize, flip, reduced, shift

__all__ = [
    "Dataset",
    "Prefetcher",
    "EpochOrder",
    "Microbatch",
    "Stream",
    "StreamOrder",
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
    "toy",
]
