"""Inception-v3 features of the published Fréchet Inception distance, from a weights file of the user."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from scorefield.core.shapes import DataSpec
from scorefield.evaluation.extractors import Pretrained
from scorefield.runtime.reading import as_path
from scorefield.runtime.weights import SHOWN, fill, read_tensors

__all__ = ["InceptionV3", "inception_features"]

FEATURES, _SIZE, _CLASSES = 2048, 299, 1008
_EPS = 1e-3  # of batch normalization
_WHAT = (
    "the FID network's weights: download pt_inception-2015-12-05-6726825d.pth, which the pytorch-fid project publishes, "
    "and write inception:FILE with the place where it lies"
)


def inception_features(path: str | Path, spec: DataSpec) -> Pretrained:
    """The 2,048 pool3 features of the FID Inception-v3 and its log probabilities over 1,008 outputs.

    The name shows the file's SHA-256, which for the published file begins with 6726825d.

    Args:
        path: The state dict that pytorch-fid publishes, as .pth (never unpickled) or converted to
            .safetensors.
        spec: What one image is; 1 or 3 channels.

    Raises:
        InputError: For no such file, a file of anything else, and data that are not images of 1 or 3
            channels.
    """
    path = as_path(path, "the file of the FID network")
    tensors, digest = read_tensors(path, _WHAT)
    with torch.device("meta"):
        net = InceptionV3()
    fill(net, tensors, path, _WHAT)
    return Pretrained(
        net,
        spec,
        f"FID Inception-v3, weights {digest[:SHOWN]}, {FEATURES:,} pool3 features",
        FEATURES,
    )


Pool = Callable[[Tensor], Tensor]
Step = Pool | dict[str, "_Conv"]


class InceptionV3(nn.Module):
    """RGB (B, 3, H, W) in [0, 1] -> pool3 features (B, 2048), logits (B, 1008)  [Szegedy et al. 2016 Table 1;
    Heusel et al. 2017]

    The TensorFlow graph of December 2015 as pytorch-fid runs it, with its names: images are resized to
    299×299 bilinearly without antialiasing and scaled to [-1, 1]; average pools do not count the padding; the
    last block pools by the maximum. The logits leave the last layer's bias out, as the Inception Score's
    published code does [Salimans et al. 2016].
    """

    def __init__(self) -> None:
        super().__init__()
        self.Conv2d_1a_3x3 = _Conv(3, 32, 3, stride=2)
        self.Conv2d_2a_3x3 = _Conv(32, 32, 3, pad=False)
        self.Conv2d_2b_3x3 = _Conv(32, 64, 3)
        self.Conv2d_3b_1x1 = _Conv(64, 80, 1)
        self.Conv2d_4a_3x3 = _Conv(80, 192, 3, pad=False)
        self.Mixed_5b, self.Mixed_5c, self.Mixed_5d = _a(192, 32), _a(256, 64), _a(288, 64)
        self.Mixed_6a = _b()
        self.Mixed_6b, self.Mixed_6c, self.Mixed_6d, self.Mixed_6e = _c(128), _c(160), _c(160), _c(192)
        self.Mixed_7a = _d()
        self.Mixed_7b, self.Mixed_7c = _e(1280, _average), _e(2048, _maximum)
        self.fc = nn.Linear(FEATURES, _CLASSES)

    def forward(self, rgb: Tensor) -> tuple[Tensor, Tensor]:
        x = 2 * F.interpolate(rgb, (_SIZE, _SIZE), mode="bilinear", align_corners=False) - 1
        x = self.Conv2d_2b_3x3(self.Conv2d_2a_3x3(self.Conv2d_1a_3x3(x)))
        x = self.Conv2d_4a_3x3(self.Conv2d_3b_1x1(_halve(x)))
        x = self.Mixed_5d(self.Mixed_5c(self.Mixed_5b(_halve(x))))
        x = self.Mixed_6e(self.Mixed_6d(self.Mixed_6c(self.Mixed_6b(self.Mixed_6a(x)))))
        x = self.Mixed_7c(self.Mixed_7b(self.Mixed_7a(x)))
        features = x.mean(dim=(2, 3))
        return features, F.linear(features, self.fc.weight)


class _Conv(nn.Module):
    """Convolution, batch normalization, ReLU. Default padding: none with stride 2, otherwise that which keeps
    the size.
    """

    def __init__(
        self, channels: int, out: int, kernel: int | tuple[int, int], stride: int = 1, pad: bool = True
    ) -> None:
        super().__init__()
        sides = (kernel, kernel) if isinstance(kernel, int) else kernel
        padding = (sides[0] // 2, sides[1] // 2) if pad and stride == 1 else 0
        self.conv = nn.Conv2d(channels, out, sides, stride, padding, bias=False)
        self.bn = nn.BatchNorm2d(out, eps=_EPS)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.bn(self.conv(x)))


class _Mixed(nn.Module):
    """Branches side by side, joined by channels. A branch is a chain of pools and of named convolutions,
    several side by side.
    """

    def __init__(self, *branches: Sequence[Step]) -> None:
        super().__init__()
        self._branches = branches
        for name, conv in (
            item for branch in branches for step in branch if isinstance(step, dict) for item in step.items()
        ):
            self.add_module(name, conv)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self._follow(branch, x) for branch in self._branches], dim=1)

    def _follow(self, branch: Sequence[Step], x: Tensor) -> Tensor:
        for step in branch:
            x = torch.cat([conv(x) for conv in step.values()], dim=1) if isinstance(step, dict) else step(x)
        return x


def _a(channels: int, pool: int) -> _Mixed:
    return _Mixed(
        [{"branch1x1": _Conv(channels, 64, 1)}],
        [{"branch5x5_1": _Conv(channels, 48, 1)}, {"branch5x5_2": _Conv(48, 64, 5)}],
        [
            {"branch3x3dbl_1": _Conv(channels, 64, 1)},
            {"branch3x3dbl_2": _Conv(64, 96, 3)},
            {"branch3x3dbl_3": _Conv(96, 96, 3)},
        ],
        [_average, {"branch_pool": _Conv(channels, pool, 1)}],
    )


def _b() -> _Mixed:
    return _Mixed(
        [{"branch3x3": _Conv(288, 384, 3, stride=2)}],
        [
            {"branch3x3dbl_1": _Conv(288, 64, 1)},
            {"branch3x3dbl_2": _Conv(64, 96, 3)},
            {"branch3x3dbl_3": _Conv(96, 96, 3, stride=2)},
        ],
        [_halve],
    )


def _c(width: int) -> _Mixed:
    return _Mixed(
        [{"branch1x1": _Conv(768, 192, 1)}],
        [
            {"branch7x7_1": _Conv(768, width, 1)},
            {"branch7x7_2": _Conv(width, width, (1, 7))},
            {"branch7x7_3": _Conv(width, 192, (7, 1))},
        ],
        [
            {"branch7x7dbl_1": _Conv(768, width, 1)},
            {"branch7x7dbl_2": _Conv(width, width, (7, 1))},
            {"branch7x7dbl_3": _Conv(width, width, (1, 7))},
            {"branch7x7dbl_4": _Conv(width, width, (7, 1))},
            {"branch7x7dbl_5": _Conv(width, 192, (1, 7))},
        ],
        [_average, {"branch_pool": _Conv(768, 192, 1)}],
    )


def _d() -> _Mixed:
    return _Mixed(
        [{"branch3x3_1": _Conv(768, 192, 1)}, {"branch3x3_2": _Conv(192, 320, 3, stride=2)}],
        [
            {"branch7x7x3_1": _Conv(768, 192, 1)},
            {"branch7x7x3_2": _Conv(192, 192, (1, 7))},
            {"branch7x7x3_3": _Conv(192, 192, (7, 1))},
            {"branch7x7x3_4": _Conv(192, 192, 3, stride=2)},
        ],
        [_halve],
    )


def _e(channels: int, pool: Pool) -> _Mixed:
    return _Mixed(
        [{"branch1x1": _Conv(channels, 320, 1)}],
        [
            {"branch3x3_1": _Conv(channels, 384, 1)},
            {"branch3x3_2a": _Conv(384, 384, (1, 3)), "branch3x3_2b": _Conv(384, 384, (3, 1))},
        ],
        [
            {"branch3x3dbl_1": _Conv(channels, 448, 1)},
            {"branch3x3dbl_2": _Conv(448, 384, 3)},
            {"branch3x3dbl_3a": _Conv(384, 384, (1, 3)), "branch3x3dbl_3b": _Conv(384, 384, (3, 1))},
        ],
        [pool, {"branch_pool": _Conv(channels, 192, 1)}],
    )


def _average(x: Tensor) -> Tensor:
    return F.avg_pool2d(x, 3, 1, padding=1, count_include_pad=False)


def _maximum(x: Tensor) -> Tensor:
    return F.max_pool2d(x, 3, 1, padding=1)


def _halve(x: Tensor) -> Tensor:
    return F.max_pool2d(x, 3, 2)
