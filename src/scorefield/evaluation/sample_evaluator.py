"""Evaluation of samples with one extractor, its reference statistics and the held-out images."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

import torch

from scorefield.data import Dataset
from scorefield.evaluation.copies import copying_ratio
from scorefield.evaluation.extractors import Extractor
from scorefield.evaluation.generated import Generated
from scorefield.evaluation.metric_value import MetricValue, Stamp
from scorefield.evaluation.metrics import MetricInputs, SampleMetric
from scorefield.evaluation.reference import Reference
from scorefield.evaluation.statistics import Images, SetStatistics, compute_statistics, real
from scorefield.runtime.atomic import make_folder
from scorefield.runtime.errors import InputError
from scorefield.runtime.progress import SILENT, Bar, Reporter
from scorefield.runtime.registry import SAMPLE_METRICS

__all__ = ["SampleEvaluator", "check_reference"]

_LONG = 60.0  # seconds of looking at the training images from which their time is said


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
        keep: Path | None = None,
    ) -> SampleEvaluator:
        """Everything that needs no samples.

        Args:
            names: Names of metrics.
            train: The training examples.
            heldout: The held-out examples.
            extractor: Of features; None where no metric needs them.
            file: Of the reference, used if it is there and written if not.
            device: Where features are computed.
            watch: Receives progress reports.
            keep: A folder where the reference is kept otherwise, and found again for the same data and
                features.

        Raises:
            InputError: For a reference of other features or data, and for held-out images that are in the
                training set.
        """
        reference = None
        if extractor is not None and any(SAMPLE_METRICS[name].compares for name in names):
            reference = _reference(
                train, extractor, file or _kept(train, extractor, keep), device, watch, file is None
            )
        with watch.progress("features of the held-out images", len(heldout)) as bar:
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
        with watch.progress("features of the samples", generated.sets * generated.count) as bar:
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


def _kept(train: Dataset, extractor: Extractor, keep: Path | None) -> Path | None:
    """The file in `keep` for the reference of these features of these images."""
    if keep is None:
        return None
    spec = train.spec
    said = repr((train.fingerprint(), spec.shape, spec.range, spec.bins, extractor.name))
    return keep / f"reference-{hashlib.sha256(said.encode()).hexdigest()[:16]}.safetensors"


def _reference(
    train: Dataset,
    extractor: Extractor,
    file: Path | None,
    device: torch.device | str,
    watch: Reporter,
    is_kept: bool,
) -> Reference:
    """From the file if it is there; otherwise of the training images, and written where there is a file.

    is_kept: the file is not the user's, and is made again where it is damaged.
    """
    if file is not None and file.expanduser().exists():
        try:
            return check_reference(Reference.load(file), file, train, extractor)
        except InputError:
            if not is_kept:
                raise
    with watch.progress("features of the training images", len(train)) as bar:
        told = _told(_timed(real(train), len(train), file, watch), bar)
        # The features are kept whatever the metrics need of them, so that the hash in a stamp does not depend
        # on them.
        batches = (x0.to(device) for x0, _ in told)
        reference = Reference.of(batches, extractor, source=train.source, fingerprint=train.fingerprint())
    if file is not None:
        if is_kept:
            make_folder(file.parent)
        reference.save(file)
        if not is_kept:
            watch.say(f"wrote the reference statistics {file}")
    return reference


def check_reference(
    reference: Reference, file: Path, train: Dataset, extractor: Extractor | None = None
) -> Reference:
    """The reference, if it is of these images and features. InputError where it is not."""
    if extractor is not None:
        reference.check(extractor)
    if reference.fingerprint != train.fingerprint():
        raise InputError(
            f"{file} is of {reference.source} (fingerprint {reference.fingerprint}), but this run is evaluated on "
            f"{train.source} (fingerprint {train.fingerprint()}): remove reference, or give another file",
            command="--reference",
        )
    return reference


def _timed(images: Images, total: int, file: Path | None, watch: Reporter) -> Images:
    """The same images; says after the second batch how long all of them will take, if that is long."""
    done, start = 0, 0.0
    for number, batch in enumerate(images):
        if number == 1:
            done, start = 0, perf_counter()
        yield batch
        done += len(batch[0])
        seconds = (perf_counter() - start) * (total - done) / done
        if number == 1 and seconds > _LONG:
            kept = "" if file is None else f"; their statistics are then kept in {file.parent}"
            watch.say(
                f"computing features of all {total:,} training images takes about {seconds / 60:.0f} minutes{kept}"
            )


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
