"""Evaluation of samples with one extractor, its reference statistics and the held-out images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from scorefield.data import Dataset
from scorefield.evaluation.copies import copying_ratio
from scorefield.evaluation.extractors import Extractor
from scorefield.evaluation.generated import Generated
from scorefield.evaluation.metric_value import MetricValue, Stamp
from scorefield.evaluation.metrics import MetricInputs, SampleMetric
from scorefield.evaluation.reference import Reference
from scorefield.evaluation.statistics import Images, SetStatistics, compute_statistics, real
from scorefield.runtime.errors import InputError
from scorefield.runtime.progress import SILENT, Bar, Reporter
from scorefield.runtime.registry import SAMPLE_METRICS

__all__ = ["SampleEvaluator"]


@dataclass(frozen=True)
class SampleEvaluator:
    """Computes metrics of generated sets.

    Attributes:
        names: Of the metrics.
        extractor: Of features; None where no metric needs them.
        train: The training examples.
        heldout: The held-out examples.
        seen: Statistics of the held-out images.
        reference: Of the training images; None where no metric compares with one.
        device: Where the extractor gets its images.
    """

    names: tuple[str, ...]
    extractor: Extractor | None
    train: Dataset
    heldout: Dataset
    seen: SetStatistics
    reference: Reference | None
    device: torch.device | str

    @classmethod
    def of(
        cls,
        names: Sequence[str],
        train: Dataset,
        heldout: Dataset,
        extractor: Extractor | None,
        file: Path | None = None,
        device: torch.device | str = "cpu",
        watch: Reporter = SILENT,
    ) -> SampleEvaluator:
        """Everything that needs no samples. file: of the reference, used if it is there and written if not.

        InputError: a reference of other features or data, held-out images that are in the training set.
        """
        reference = None
        if extractor is not None and any(SAMPLE_METRICS[name].compares for name in names):
            reference = _reference(train, extractor, file, device, watch)
        with watch.progress("looking at the held-out images", len(heldout)) as bar:
            seen = compute_statistics(_told(real(heldout), bar), extractor, train, _keep(names), device)
        if seen.nearest is not None:
            copying_ratio(
                seen.nearest, seen.nearest
            )  # held-out images that cannot serve are found before anything is sampled
        return cls(tuple(names), extractor, train, heldout, seen, reference, device)

    def figures(
        self, generated: Generated, stamp: Stamp, watch: Reporter = SILENT
    ) -> tuple[dict[str, list[MetricValue]], list[str]]:
        """(Figures by metric, warnings). Every set is seen once, a batch of its images at a time."""
        sets = []
        with watch.progress("looking at the samples", generated.sets * generated.count) as bar:
            for k in range(generated.sets):
                sets.append(
                    compute_statistics(
                        _told(generated.images(k), bar),
                        self.extractor,
                        self.train,
                        _keep(self.names),
                        self.device,
                    )
                )
        judged = MetricInputs(sets, self.seen, self.heldout, self.reference)
        known = dict(stamp)
        if self.extractor is not None:
            known["features"] = {"extractor": self.extractor.name, "dimension": self.extractor.dimension}
        compared = known if self.reference is None else {**known, "reference": _describe(self.reference)}
        chosen: dict[str, SampleMetric] = {name: SAMPLE_METRICS[name] for name in self.names}
        figures = {
            name: metric.measure(judged, compared if metric.compares else known if metric.looks else stamp)
            for name, metric in chosen.items()
        }
        return figures, list(
            dict.fromkeys(text for metric in chosen.values() for text in metric.warn(judged))
        )


def _reference(
    train: Dataset, extractor: Extractor, file: Path | None, device: torch.device | str, watch: Reporter
) -> Reference:
    """From the file if it is there; otherwise of the training images, and written where a file is named."""
    if file is not None and file.expanduser().exists():
        reference = Reference.load(file)
        reference.check(extractor)
        if reference.fingerprint != train.fingerprint():
            raise InputError(
                f"{file} is of {reference.source} (fingerprint {reference.fingerprint}), and this run is judged by "
                f"{train.source} (fingerprint {train.fingerprint()}): leave reference out, or name a new file to write",
                command="--reference",
            )
        return reference
    with watch.progress("looking at the training images", len(train)) as bar:
        batches = (x0.to(device) for x0, _ in _told(real(train), bar))
        # The features are kept whatever the metrics need of them, so that the hash in a stamp does not depend
        # on them.
        reference = Reference.of(batches, extractor, source=train.source, fingerprint=train.fingerprint())
    if file is not None:
        reference.save(file)
        watch.say(f"wrote the reference statistics {file}")
    return reference


def _describe(reference: Reference) -> dict[str, str | int]:
    return {
        "hash": reference.stamp,
        "images": reference.count,
        "source": reference.source,
        "fingerprint": reference.fingerprint,
    }


def _keep(names: Sequence[str]) -> frozenset[str]:
    return frozenset().union(*(SAMPLE_METRICS[name].keep for name in names))


def _told(images: Images, bar: Bar) -> Images:
    """The same images; the bar counts those that have passed."""
    done = 0
    for x0, labels in images:
        yield x0, labels
        done += len(x0)
        bar.update(done)
