"""Data: sources of examples, the order in which training visits them, and random changes to a batch."""

from scorefield.data.dataset import Dataset, tensor
from scorefield.data.embedded import digits
from scorefield.data.feed import Feed, Part
from scorefield.data.files import folder, npz
from scorefield.data.hub import hf, stream
from scorefield.data.order import Order
from scorefield.data.sources import open_source
from scorefield.data.streams import Stream, StreamOrder
from scorefield.data.toys import toy
from scorefield.data.transforms import dequantize, flip, reduced, shift

__all__ = [
    "Dataset",
    "Feed",
    "Order",
    "Part",
    "Stream",
    "StreamOrder",
    "dequantize",
    "digits",
    "flip",
    "folder",
    "hf",
    "npz",
    "open_source",
    "reduced",
    "shift",
    "stream",
    "tensor",
    "toy",
]
