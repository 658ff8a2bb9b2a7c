"""References: one pass over the data, saved whole, recognized by content, refused when they are something
else.
"""

import os

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from support import assert_close

from scorefield.core.shapes import DataSpec
from scorefield.evaluation import ModuleFeatures, Moments, Reference, frechet_distance
from scorefield.runtime.errors import InputError

SPEC = DataSpec((1, 3, 4))
PIXELS = ModuleFeatures(lambda x: x.flatten(1), SPEC, "pixels")


def batches(count=50, seed=0):
    return torch.randn(count, *SPEC.shape, generator=torch.Generator().manual_seed(seed)).split(16)


def reference(seed=0, **changed):
    return Reference.of(
        batches(seed=seed), PIXELS, **{"source": "noise", "fingerprint": "0123456789abcdef"} | changed
    )


def test_one_pass():
    x = torch.cat(batches()).flatten(1)
    made = reference()
    assert made.count == 50
    assert torch.equal(made.features, x)
    assert_close(made.moments.mean, x.double().mean(dim=0), 1e-12)
    assert_close(made.moments.cov, torch.cov(x.double().T), 1e-12)
    assert (made.extractor, made.source, made.fingerprint) == ("pixels", "noise", "0123456789abcdef")
    lean = reference(keep_features=False)
    assert lean.features is None
    assert torch.equal(lean.moments.scatter, made.moments.scatter)


@pytest.mark.parametrize("keep", [True, False])
def test_saved_and_loaded(tmp_path, keep):
    made = reference(keep_features=keep)
    made.save(tmp_path / "reference.safetensors")
    assert os.listdir(tmp_path) == ["reference.safetensors"]
    read = Reference.load(str(tmp_path / "reference.safetensors"))
    assert read.hash == made.hash
    assert (read.count, read.extractor, read.source, read.fingerprint) == (
        50,
        "pixels",
        "noise",
        "0123456789abcdef",
    )
    assert torch.equal(read.moments.cov, made.moments.cov)
    assert torch.equal(read.moments.mean, made.moments.mean)
    assert (read.features is not None) == keep
    if keep:
        assert torch.equal(read.features, made.features)
    assert frechet_distance(read.moments, made.moments) < 1e-10
    # Loaded moments go on where they stopped.
    more = torch.cat(batches(seed=1)).flatten(1)
    both = Moments().update(torch.cat([torch.cat(batches()).flatten(1), more]))
    assert_close(read.moments.update(more).cov, both.cov, 1e-12)


def test_hash_is_of_the_content():
    made = reference()
    assert len(made.hash) == 64
    assert made.hash.startswith(made.stamp)
    assert len(made.stamp) == 12
    assert reference().hash == made.hash
    others = [
        reference(seed=1),
        reference(source="other"),
        reference(fingerprint="other"),
        reference(keep_features=False),
        Reference.of(
            batches(),
            ModuleFeatures(lambda x: x.flatten(1), SPEC, "other"),
            source="noise",
            fingerprint="0123456789abcdef",
        ),
    ]
    assert len({made.hash, *(other.hash for other in others)}) == 6
    # Texts that run together are not confused.
    assert reference(source="ab", fingerprint="c").hash != reference(source="a", fingerprint="bc").hash


def test_other_features_are_refused():
    made = reference()
    made.check(PIXELS)
    other = ModuleFeatures(lambda x: x.flatten(1), SPEC, "a network")
    with pytest.raises(
        InputError,
        match="features of pixels, but those of the samples are of a network: use the same extractor",
    ):
        made.check(other)


def test_damaged_and_foreign_files(tmp_path):
    path = tmp_path / "reference.safetensors"
    with pytest.raises(InputError, match="there is no such file"):
        Reference.load(path)
    reference().save(path)
    whole = path.read_bytes()
    for content in (b"", whole[:100], whole[:-10], b"<html>" + whole):
        path.write_bytes(content)
        with pytest.raises(
            InputError,
            match=r"is damaged, cut off or no \.safetensors file .*: compute the reference again",
        ):
            Reference.load(path)
    path.write_bytes(whole[:-8] + bytes(8))
    with pytest.raises(InputError, match="has changed since it was written"):
        Reference.load(path)
    path.write_bytes(whole)
    with safe_open(path, "pt") as file:
        known, tensors = file.metadata(), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    save_file(tensors, path, known | {"source": "others"})
    with pytest.raises(InputError, match="has changed since it was written"):
        Reference.load(path)
    for metadata in (None, {"format": "other"}):
        save_file({"weight": torch.zeros(3)}, path, metadata)
        with pytest.raises(InputError, match="not a reference file"):
            Reference.load(path)


def test_what_cannot_be_written_leaves_what_was_there(tmp_path, monkeypatch):
    with pytest.raises(InputError, match="there is no folder"):
        reference().save(tmp_path / "none" / "reference.safetensors")
    path = tmp_path / "reference.safetensors"
    made = reference()
    made.save(path)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(InputError, match=r"cannot be written .*No space left on device"):
        reference(seed=1).save(path)
    assert os.listdir(tmp_path) == ["reference.safetensors"]
    assert Reference.load(path).hash == made.hash


def test_bad_images():
    with pytest.raises(InputError, match="noise: there are no images"):
        Reference.of([], PIXELS, source="noise", fingerprint="")
    bad = [part.clone() for part in batches()]
    bad[1][3, 0, 0, 0] = torch.nan
    with pytest.raises(InputError, match="1 of 16 feature vectors hold NaN"):
        Reference.of(bad, PIXELS, source="noise", fingerprint="")
    with pytest.raises(InputError, match="pixels: takes images"):
        Reference.of([torch.zeros(2, 1, 4, 4)], PIXELS, source="noise", fingerprint="")


def test_what_is_no_reference_is_not_replaced(tmp_path):
    save_file({"weights": torch.zeros(2)}, tmp_path / "model.safetensors")
    before = (tmp_path / "model.safetensors").read_bytes()
    with pytest.raises(InputError, match="was not written by scorefield"):
        reference().save(tmp_path / "model.safetensors")
    assert (tmp_path / "model.safetensors").read_bytes() == before
