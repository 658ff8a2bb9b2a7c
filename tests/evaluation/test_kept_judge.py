"""What evaluation computes of the training images is computed once; what cannot serve is refused before that."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from support import call, tiny

import scorefield as sf
from scorefield.evaluation.features import load_classifier, train_classifier

FAST = ["--steps", 2, "--sets", 1, "-n", 70, "--device", "cpu", "--json"]
MLP = "net={kind='mlp',hidden=16,layers=1}"


@pytest.fixture
def trained(monkeypatch) -> list[int]:
    """One entry for each classifier that is trained, in one step."""
    calls: list[int] = []

    def quick(data, **options):
        calls.append(len(data))
        return train_classifier(data, examples=1, passes=(0, 1), **options)

    monkeypatch.setattr("scorefield.evaluation.catalogue.train_classifier", quick)
    return calls


def evaluated(capsys, run: Path, *words: object) -> str:
    status, out, err = call(capsys, "evaluate", run, *FAST, *words)
    assert status == 0, err
    return str(out)


def test_a_classifier_is_read_again_as_it_was(tmp_path):
    data = sf.data.digits().subset(torch.arange(100))
    made = train_classifier(data, examples=1, passes=(0, 1))
    made.save(tmp_path / "c.safetensors")
    found = load_classifier(tmp_path / "c.safetensors", data.spec)
    x0 = data.batch(torch.arange(9))[0]
    assert found.name == made.name
    assert torch.equal(found(x0).features, made(x0).features)
    assert torch.equal(found.predict(x0), made.predict(x0))
    with pytest.raises(sf.InputError, match="expected a classifier"):
        load_classifier(tmp_path / "c.safetensors", sf.data.portraits().spec)
    (tmp_path / "c.safetensors").write_bytes(b"no tensors")
    with pytest.raises(sf.InputError):
        load_classifier(tmp_path / "c.safetensors", data.spec)


def test_the_judge_is_made_once_and_again_where_it_is_damaged(capsys, tiny_run, tmp_path, trained):
    run = tiny_run.copy(tmp_path / "run", "digits", MLP)
    first = evaluated(capsys, run)
    kept = sorted(path.name.split("-")[0] for path in (run / "evaluation" / "judge").iterdir())
    assert kept == ["classifier", "reference"]
    assert evaluated(capsys, run) == first
    assert trained == [1437]
    for path in (run / "evaluation" / "judge").iterdir():
        path.write_bytes(path.read_bytes()[:-1])
    assert evaluated(capsys, run) == first
    assert trained == [1437, 1437]


def test_a_reference_of_another_kind_or_of_other_data_trains_no_judge(capsys, tiny_run, tmp_path, trained):
    run = tiny_run.copy(tmp_path / "run", "digits", MLP)
    train, heldout = sf.data.digits().split(0.2, 0)
    make = sf.evaluation.ModuleFeatures(lambda x: x.flatten(1)[:, :4], train.spec, "corners")
    for name, data, message in (
        ("kind", train, "holds features of corners"),
        ("data", heldout, "is of digits"),
    ):
        reference = sf.evaluation.Reference.of(
            [data.batch(torch.arange(50))[0]], make, source=data.source, fingerprint=data.fingerprint()
        )
        reference.save(tmp_path / f"{name}.safetensors")
        words = ["evaluate", run, *FAST, "--reference", tmp_path / f"{name}.safetensors"]
        status, _, err = call(capsys, *words)
        assert status == 1
        assert message in err
    assert not trained
    assert not list((run / "evaluation").rglob("block-*"))


def test_a_run_that_held_nothing_out_can_be_judged(capsys, tiny_run, tmp_path, trained):
    run = tiny_run.copy(tmp_path / "run", "digits", MLP, "data.holdout=0")
    np.savez(tmp_path / "a.npz", images=np.zeros((80, 8, 8), np.uint8))
    for words in ([], ["--samples", tmp_path / "a.npz"]):
        status, _, err = call(capsys, "evaluate", run, *FAST, *words)
        assert status == 0, err
        assert "has no held-out images: 180 of its training images" in err
        assert "not what this run was trained on" not in err
    status, _, err = call(capsys, "evaluate", run, *FAST, "--metrics", "bpd")
    assert status == 1


@pytest.mark.parametrize("size", [(8, 6), (6, 8)])
def test_samples_that_are_not_square_are_judged_from_a_folder(capsys, tmp_path, size):
    height, width = size
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (60, height, width), dtype=np.uint8)
    np.savez(tmp_path / "data.npz", images=images, labels=np.arange(60) % 2)
    run, small = (
        tmp_path / "run",
        tiny("digits", "net={kind='mlp',hidden=8,layers=1}", "model.conditional=false"),
    )
    words = ["train", "digits", "--data", tmp_path / "data.npz", "--run", run, "--steps", 1]
    status, _, err = call(capsys, *words, *small)
    assert status == 0, err
    out = tmp_path / "samples"
    assert call(capsys, "sample", run, "-n", 6, "--steps", 2, "--device", "cpu", "--out", out)[0] == 0
    assert Image.open(out / "000000.png").size == (width, height)
    words = ["--metrics", "copies", "--samples", out, "-n", 6, "--device", "cpu"]
    status, _, err = call(capsys, "evaluate", run, *words)
    assert status == 0, err
