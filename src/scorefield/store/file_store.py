"""Resumable on-disk store of samples, one file per sample."""

from __future__ import annotations

import csv
import hashlib
import io
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image
from torch import Tensor

from scorefield.core.shapes import DataSpec, are_images
from scorefield.runtime.atomic import atomic_folder, drop_partials, make_folder, write_file, write_new
from scorefield.runtime.checks import unwritable
from scorefield.runtime.errors import InputError
from scorefield.runtime.reading import read_bytes, read_json, read_text, reading
from scorefield.store.block_store import Block, BlockFolder, finite
from scorefield.store.outputs import is_free
from scorefield.store.writers import channels_last

__all__ = ["SampleFiles", "check_new_folder", "classes_of", "write_samples"]

_LABELS = "labels.csv"
_LARGEST = 2**30  # bytes of a sample's file


class SampleFiles(BlockFolder):
    """Samples 0, 1, … in a folder, each in a file that is whole or absent.

    Images are 000000.png, …; anything else is 000000.npy, float32 in the data's units. .blocks/00000000.json
    holds the SHA-256 of the files of a block, so that a damaged file is found and made again. Deleting any of
    these files is safe, but for the manifest: without it nothing says whose the files are.
    labels.csv says file, label and class where there are labels (`write_labels`, `classes_of`).
    """

    def _open(self) -> None:
        super()._open()
        drop_partials(self.folder / ".blocks")

    def write_labels(self, n: int, labels: Sequence[int]) -> None:
        """labels.csv of samples 0 … n−1, label i mod len(labels) of sample i; one that says more stays.

        InputError where it cannot be written.
        """
        path, text = self.folder / _LABELS, self._labels_text(n, labels).encode()
        if not (_content(path) or b"").startswith(text):
            self._put(path, text, sync=True)

    def _is_whole(self, k: int, count: int) -> bool:
        hashes = self._hashes(k)
        return len(hashes) >= count and all(
            _sha256(_content(path)) == hash for path, hash in zip(self._paths(k, count), hashes, strict=False)
        )

    def _write(self, k: int, block: Block, count: int) -> None:
        contents = _contents(block.x[:count], self.spec)
        for path, content in zip(self._paths(k, count), contents, strict=True):
            if _content(path) != content:
                self._put(path, content, sync=False)  # the hashes find what a power cut took
        hashes = {"samples": self.digest, "block": k, "sha256": [_sha256(content) for content in contents]}
        self._put(self._record(k), json.dumps(hashes).encode(), sync=True)

    def _put(self, path: Path, content: bytes, sync: bool) -> None:
        try:
            if path.parent != self.folder:
                make_folder(path.parent)
            write_file(path, content, sync)
        except OSError as error:
            raise self._unwritable(path, error) from None

    def _hashes(self, k: int) -> list[str]:
        """What the files of a block should hash to; nothing where that is not known."""
        try:
            record = read_json(self._record(k), "the hashes of a block", follow=False)
            return list(record["sha256"]) if (record["samples"], record["block"]) == (self.digest, k) else []
        except (InputError, KeyError, TypeError):
            return []

    def _record(self, k: int) -> Path:
        return self.folder / ".blocks" / f"{k:08d}.json"

    def _paths(self, k: int, count: int) -> list[Path]:
        return [self.folder / _name(i, self.spec) for i in range(k * self.size, k * self.size + count)]

    def _labels_text(self, n: int, labels: Sequence[int]) -> str:
        lines, classes = io.StringIO(), self.spec.classes
        writer = csv.writer(lines, lineterminator="\n")
        writer.writerow(("file", "label", "class"))
        for i in range(n):
            label = labels[i % len(labels)]
            writer.writerow((_name(i, self.spec), label, classes[label] if label < len(classes) else ""))
        return lines.getvalue()


def check_new_folder(folder: Path) -> None:
    """InputError unless this is a folder that is empty, or does not exist."""
    if not is_free(folder):
        raise InputError(f"{folder} is not an empty folder: choose another folder for the samples")


def write_samples(folder: Path, values: Tensor, spec: DataSpec) -> None:
    """uint8 images (N, C, H, W), or points (N, *), into a new or empty folder, a file each. InputError where that
    is not possible.
    """
    check_new_folder(folder)
    contents = (
        [_png(x) for x in channels_last(values)] if are_images(spec.shape) else map(_npy, values.numpy())
    )
    try:
        with atomic_folder(folder) as partial:
            for i, content in enumerate(contents):
                write_new(partial / _name(i, spec), content)
    except OSError as error:
        raise unwritable(folder, error) from None


def classes_of(folder: Path) -> dict[str, str]:
    """The class of each file in labels.csv, as `SampleFiles.write_labels` writes it; nothing where there is
    no such table.
    """
    try:
        text = read_text(folder / _LABELS, "a table of labels")
        with reading(folder / _LABELS):
            return {row["file"]: row["class"] for row in csv.DictReader(io.StringIO(text, newline=""))}
    except InputError:
        return {}


def _name(i: int, spec: DataSpec) -> str:
    return f"{i:06d}.{'png' if are_images(spec.shape) else 'npy'}"


def _contents(x: Tensor, spec: DataSpec) -> list[bytes]:
    """The bytes of each sample's file."""
    if are_images(spec.shape):
        return [_png(image) for image in channels_last(spec.to_uint8(x))]
    return [_npy(sample) for sample in finite(x).cpu().numpy()]


def _content(path: Path) -> bytes | None:
    try:
        return read_bytes(path, "a sample", _LARGEST, follow=False)
    except InputError:
        return None


def _sha256(content: bytes | None) -> str | None:
    return None if content is None else hashlib.sha256(content).hexdigest()


def _png(image: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(image).save(file, format="PNG")
    return file.getvalue()


def _npy(sample: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, sample, allow_pickle=False)
    return file.getvalue()
