"""Files that a user names: a file of somebody else's is not replaced, and whatever can be refused is refused first."""

import os

import numpy as np
import pytest
from PIL import Image
from support import call

import scorefield as sf
from scorefield.store.outputs import check_output, is_folder_name

FEW = ["--steps", 2, "--device", "cpu"]


def never(*_, **__):
    raise AssertionError("the model was asked")


@pytest.fixture
def run(tiny_run):
    return tiny_run("digits")


@pytest.fixture
def pictures(tmp_path):
    np.savez(tmp_path / "mine.npz", images=np.zeros((2, 8, 8), np.uint8))
    return tmp_path / "mine.npz"


COMMANDS = {
    "out.npz": lambda run, out, _: ["sample", run, "-n", 2, *FEW, "--out", out],
    "out.png": lambda run, out, _: ["sample", run, "-n", 2, *FEW, "--out", out],
    "out.gif": lambda run, out, _: [
        "sample",
        run,
        "-n",
        2,
        *FEW,
        "--trajectory",
        out,
        "--out",
        out.parent / "s.png",
    ],
    "plot.png": lambda run, out, _: ["plot", run, "--out", out],
    "latents.npz": lambda run, out, images: ["encode", run, images, "--label", 1, *FEW, "--out", out],
    "walk.gif": lambda run, out, _: [
        "interpolate",
        run,
        1,
        2,
        "--frames",
        2,
        "--label",
        1,
        *FEW,
        "--out",
        out,
    ],
    "walk.png": lambda run, out, _: [
        "interpolate",
        run,
        1,
        2,
        "--frames",
        2,
        "--label",
        1,
        *FEW,
        "--out",
        out,
    ],
}


@pytest.mark.parametrize("name", COMMANDS)
def test_a_file_of_somebody_else_is_not_replaced(capsys, run, pictures, tmp_path, monkeypatch, name):
    """Not even one of the same kind: training images in an .npz have the names that samples have. What the command
    itself wrote is replaced, and so is an empty file.
    """
    out = tmp_path / name
    words = COMMANDS[name](run, out, pictures)
    foreign = [b"chapter 1", pictures.read_bytes()]
    Image.new("L", (4, 4)).save(tmp_path / "other.png")
    foreign.append((tmp_path / "other.png").read_bytes())
    with monkeypatch.context() as patch:
        patch.setattr("scorefield.nets.UNet.forward", never)
        for content in foreign:
            out.write_bytes(content)
            status, _, err = call(capsys, *words)
            assert status == 1, err
            assert f"{name} exists and was not written by scorefield" in err
            assert out.read_bytes() == content
        out.unlink()
        for target in (pictures, tmp_path / "nothing"):
            out.symlink_to(target)
            assert call(capsys, *words)[0] == 1
            assert out.is_symlink()
            out.unlink()
        out.mkdir()
        status, _, err = call(capsys, *words)
        assert status == 1
        assert "is a folder" in err
        out.rmdir()
    out.write_bytes(b"")
    for _ in range(2):
        status, _, err = call(capsys, *words)
        assert status == 0, err
        assert out.stat().st_size


def test_the_default_target_is_the_runs_own(capsys, tiny_run, tmp_path):
    """Of earlier versions too, which left no mark in it."""
    run = tiny_run.copy(tmp_path / "r", "digits")
    (run / "samples").mkdir()
    Image.new("L", (4, 4)).save(run / "samples" / "seed-0-n-2.png")
    assert call(capsys, "sample", run, "-n", 2, *FEW)[0] == 0


def test_from_python_too(run, tmp_path, pictures):
    samples = sf.Run(run).sample(2, steps=2, device="cpu")
    before = pictures.read_bytes()
    with pytest.raises(sf.InputError, match="was not written by scorefield"):
        samples.save(pictures)
    assert pictures.read_bytes() == before
    samples.save(tmp_path / "new.npz")
    samples.save(tmp_path / "new.npz")
    with np.load(tmp_path / "new.npz") as found:
        assert np.array_equal(found["images"], samples.images)


def test_a_folder_that_cannot_be_written_is_found_before_sampling(capsys, run, tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # root may write everywhere
    monkeypatch.setattr("scorefield.nets.UNet.forward", never)
    for name in ("a.png", "a.npz"):
        status, _, err = call(capsys, "sample", run, "-n", 2, *FEW, "--out", tmp_path / name)
        assert status == 1
        assert "Permission denied" in err


@pytest.mark.parametrize(
    ("name", "folder"),
    [
        ("samples", True),
        ("samples_w1.5", True),
        ("v0.1.0", True),
        ("w=1e-3.0", True),
        (".hidden", True),
        ("2026-01-01 12.30.05", True),
        ("samples.", True),
        ("a.png", False),
        ("a.PNG", False),
        ("a.jpg", False),
        ("a.jpeg", False),
        ("a.mp4", False),
        ("a.npy", False),
    ],
)
def test_a_number_is_no_type(tmp_path, name, folder):
    assert is_folder_name(tmp_path / name) is folder


def test_samples_go_into_folders_with_dots(capsys, run, tmp_path):
    for name, there in (("samples_w1.5", False), ("samples_w2.0", True)):
        if there:
            (tmp_path / name).mkdir()
        assert call(capsys, "sample", run, "-n", 2, *FEW, "--out", tmp_path / name)[0] == 0
        assert (tmp_path / name / "000001.png").is_file()
    assert call(capsys, "sample", run, "-n", 2, *FEW, "--out", tmp_path / "a.jpg")[0] == 1


def test_a_pipe_or_a_device_is_not_replaced(tmp_path):
    os.mkfifo(tmp_path / "a.png")
    (tmp_path / "b.png").symlink_to("/dev/zero")
    for name in ("a.png", "b.png"):
        with pytest.raises(sf.InputError, match="was not written by scorefield"):
            check_output(tmp_path / name)


def test_decoded_images_replace_only_their_like(capsys, run, tmp_path, pictures):
    assert call(capsys, "encode", run, pictures, "--label", 1, *FEW, "--out", tmp_path / "l.npz")[0] == 0
    words = ["decode", run, tmp_path / "l.npz", "--device", "cpu", "--out"]
    status, _, err = call(capsys, *words, pictures)
    assert status == 1
    assert "was not written by scorefield" in err
    for _ in range(2):
        assert call(capsys, *words, tmp_path / "d.png")[0] == 0
    assert call(capsys, *words, tmp_path / "decoded_1.0")[0] == 0
    assert sorted(os.listdir(tmp_path / "decoded_1.0")) == ["000000.png", "000001.png"]
