"""Reference statistics of real images, saved once and checked against what they are compared with."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from scorefield.evaluation.extractors import Extractor
from scorefield.evaluation.frechet import Moments
from scorefield.runtime.atomic import atomic_write
from scorefield.runtime.checks import unwritable
from scorefield.runtime.errors import InputError
from scorefield.runtime.reading import as_path, reading
from scorefield.runtime.weights import SHOWN, open_tensors, sha256
from scorefield.store.outputs import MARK, check_output

__all__ = ["Reference"]

_FORMAT = "scorefield reference 1"


@dataclass(frozen=True, eq=False)
class Reference:
    """Statistics of the features of real images.

    Attributes:
        moments: Count, mean and covariance of the features.
        features: The features themselves, (N, D) float32, which the kernel distance and precision and recall
            need.
        extractor: Name of the extractor.
        source: The data, as the user named it.
        fingerprint: Digest of the data.
    """

    moments: Moments
    features: Tensor | None
    extractor: str
    source: str
    fingerprint: str

    @classmethod
    def of(
        cls,
        batches: Iterable[Tensor],
        extractor: Extractor,
        keep_features: bool = True,
        *,
        source: str,
        fingerprint: str,
    ) -> Reference:
        """See every batch of images once, one at a time in memory.

        Args:
            batches: Images x0, (B, C, H, W) each.
            extractor: Of their features.
            keep_features: Whether the features themselves are kept, which the kernel distance and precision
                and recall need.
            source: The data, as the user named it.
            fingerprint: Digest of the data.

        Raises:
            InputError: Where there are no images.
        """
        moments, kept = Moments(), []
        for x0 in batches:
            features = extractor(x0).features
            moments.update(features)
            kept += [features] if keep_features else []
        if not moments.count:
            raise InputError(f"{source}: there are no images to compare with")
        return cls(moments, torch.cat(kept) if keep_features else None, extractor.name, source, fingerprint)

    @property
    def count(self) -> int:
        """N, the number of images."""
        return self.moments.count

    @property
    def stamp(self) -> str:
        """The first 12 digits of `hash`, as stamps show it."""
        return self.hash[:SHOWN]

    @cached_property
    def hash(self) -> str:
        """SHA-256 over everything above, 64 hexadecimal digits: equal for equal references."""
        return sha256(self._tensors(), *self._texts().values())

    def check(self, extractor: Extractor) -> None:
        """Check that these are features of an extractor.

        Args:
            extractor: The samples' extractor.

        Raises:
            InputError: Where it has another name.
        """
        if self.extractor != extractor.name:
            raise InputError(
                f"the reference holds features of {self.extractor}, but those of the samples are of {extractor.name}: "
                "use the same extractor, or compute the reference again"
            )

    def save(self, path: str | Path) -> None:
        """Write a .safetensors file atomically.

        Args:
            path: The file.

        Raises:
            InputError: When it cannot be written, and for a file that is there and scorefield did not write.
        """
        path = as_path(path, "a reference")
        check_output(path)
        said = {"format": _FORMAT, "sha256": self.hash, "comment": MARK, **self._texts()}
        try:
            with atomic_write(path) as partial:
                save_file(self._tensors(), partial, said)
        except (OSError, SafetensorError) as error:
            raise unwritable(path, error) from None

    @classmethod
    def load(cls, path: str | Path) -> Reference:
        """Read what `save` wrote.

        Args:
            path: The file.

        Raises:
            InputError: For a file that is missing, damaged or of another kind.
        """
        path = as_path(path, "a reference")
        try:
            with open_tensors(path, "a .safetensors file that `Reference.save` wrote") as file:
                known, tensors = file.metadata, file.tensors()
        except InputError as error:
            raise InputError(f"{error}: compute the reference again") from None
        if known.get("format") != _FORMAT:
            raise InputError(
                f"{path}: not a reference file (format {_FORMAT!r}): compute the reference again"
            )
        texts = [known.get(name, "") for name in ("extractor", "source", "fingerprint")]
        if sha256(tensors, *texts) != known.get("sha256"):
            raise InputError(
                f"{path}: has changed since it was written (its SHA-256 differs): compute the reference again"
            )
        with reading(path):
            moments = Moments.of(int(tensors["count"]), tensors["mean"], tensors["scatter"])
        return cls(moments, tensors.get("features"), *texts)

    def _tensors(self) -> dict[str, Tensor]:
        stored = {
            "mean": self.moments.mean,
            "scatter": self.moments.scatter,
            "count": torch.tensor(self.count),
        }
        return stored if self.features is None else stored | {"features": self.features}

    def _texts(self) -> dict[str, str]:
        return {"extractor": self.extractor, "source": self.source, "fingerprint": self.fingerprint}
