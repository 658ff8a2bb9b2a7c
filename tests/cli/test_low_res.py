"""`train` of an upsampler and `sample --low-res`: image i of the file becomes sample i, whatever kind of file
it is.
"""

import tomllib

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from support import call, frames

import scorefield as sf
import scorefield.cli
from scorefield.generation.sample_blocks import sample_blocks


@pytest.fixture(scope="module")
def run(tiny_run, tmp_path_factory):
    """Two steps of training, then weights that make the small image matter."""
    folder = tiny_run.copy(
        tmp_path_factory.mktemp("runs") / "upsampler",
        "digits-upsampler",
        "training.precision=fp32",
        "training.sample_every=2",
    )
    generator = torch.Generator().manual_seed(0)
    weights = load_file(folder / "model.safetensors")
    save_file(
        {k: v + 0.1 * torch.randn(v.shape, generator=generator) for k, v in weights.items()},
        folder / "model.safetensors",
    )
    return folder


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """Five 4×4 images and their classes: as an .npz, one picture, a folder, and folders of classes."""
    folder = tmp_path_factory.mktemp("small")
    images = np.random.default_rng(0).integers(0, 256, (5, 4, 4), dtype=np.uint8)
    labels = np.array([7, 3, 3, 9, 0])
    np.savez(folder / "labelled.npz", images=images, labels=labels)
    np.savez(folder / "bare.npz", images=images)
    np.savez(folder / "large.npz", images=np.zeros((2, 8, 8), np.uint8))
    np.savez(folder / "strange.npz", images=images, labels=labels + 10)
    (folder / "pictures").mkdir()
    for i, image in enumerate(images):
        Image.fromarray(image).save(folder / "pictures" / f"{i}.png")
    (folder / "mixed").mkdir()
    for side in (4, 8):
        Image.fromarray(np.zeros((side, side), np.uint8)).save(folder / "mixed" / f"{side}.png")
    (folder / "broken.png").write_bytes(b"no picture")
    (folder / "classes" / "8").mkdir(parents=True)
    Image.fromarray(images[0]).save(folder / "classes" / "8" / "a.png")
    return folder, images, labels


def enlarged(run, images, labels, n):
    """What the command should make, from Python: one call of the model for all samples, each beside its
    image.
    """
    model = sf.load(run)
    low_res = torch.from_numpy(images)[:, None][torch.arange(n) % len(images)] / 127.5 - 1
    bound = sf.guidance.ClipX0(
        model.given(low_res=low_res).given([int(labels[i % len(labels)]) for i in range(n)])  # type: ignore[arg-type]
    )
    noise = sf.noise.NoiseSource(0, range(n))
    x = sf.sample(bound, sf.samplers.DDIM(), sf.grids.uniform(model.process, 3), n=n, noise=noise)
    return model.data.to_uint8(x)[:, 0].numpy()


def sample(capsys, run, target, *options):
    status, _, err = call(capsys, "sample", run, "--sampler", "ddim", "--steps", 3, "--out", target, *options)
    assert status == 0, err
    return np.load(target)


def close(images, expected):
    """Batches of another size round differently, which may move a value to the next of the 17 levels."""
    return images.shape == expected.shape and np.mean(images != expected) < 0.01


def test_the_run_says_what_it_enlarges(capsys, run):
    config = tomllib.loads((run / "config.toml").read_text())
    assert (config["model"]["low_res"], config["net"]["low_res"]) == (4, True)
    assert sf.load(run).low_res == 4
    status, out, err = call(capsys, "info", run)
    assert status == 0, err
    assert "upsamples images of 4×4" in out
    assert Image.open(run / "samples" / "step-00000002.png").size[0] > 100


@pytest.mark.parametrize("n", [None, 3, 12])
def test_an_npz_brings_its_own_classes(capsys, run, small, tmp_path, n):
    folder, images, labels = small
    options = [] if n is None else ["-n", n]
    arrays = sample(capsys, run, tmp_path / "out.npz", "--low-res", folder / "labelled.npz", *options)
    n = n or 5
    assert arrays["labels"].tolist() == [labels[i % 5] for i in range(n)]
    expected = enlarged(run, images, labels, n)
    assert close(arrays["images"], expected)
    assert not close(arrays["images"], enlarged(run, images[::-1].copy(), labels, n))


def test_pictures_and_folders(capsys, run, small, tmp_path):
    folder, images, _ = small
    several = sample(capsys, run, tmp_path / "a.npz", "--low-res", folder / "pictures", "--label", "4,5")
    assert several["labels"].tolist() == [4, 5, 4, 5, 4]
    assert close(several["images"], enlarged(run, images, [4, 5], 5))
    one = sample(capsys, run, tmp_path / "b.npz", "--low-res", folder / "pictures" / "2.png", "--label", "1")
    assert close(one["images"], enlarged(run, images[2:3], [1], 1))
    classes = sample(capsys, run, tmp_path / "c.npz", "--low-res", folder / "classes")
    assert classes["labels"].tolist() == [8]
    assert close(classes["images"], enlarged(run, images[:1], [8], 1))


def test_the_way_as_an_animation(capsys, run, small, tmp_path):
    options = ["--low-res", small[0] / "labelled.npz", "--trajectory", tmp_path / "a.gif"]
    status, _, err = call(capsys, "sample", run, "--steps", 4, "--out", tmp_path / "a.png", *options)
    assert status == 0, err
    assert frames(tmp_path / "a.gif") >= 4


def test_what_it_writes_it_reads(capsys, run, small, tmp_path):
    """The .npz of small samples, with numbers for classes, is what the next run enlarges: a cascade."""
    folder, _, labels = small
    first = sample(capsys, run, tmp_path / "a.npz", "--low-res", folder / "labelled.npz")
    np.savez(tmp_path / "half.npz", images=first["images"][:, ::2, ::2], labels=first["labels"])
    again = sample(capsys, run, tmp_path / "b.npz", "--low-res", tmp_path / "half.npz")
    assert again["labels"].tolist() == labels.tolist()


MISTAKES = [
    (["sample", "{run}"], "an .npz, an image file or a folder (--low-res FILE)"),
    (["sample", "{run}", "--low-res", "{small}/nothing.npz"], "no such file"),
    (["sample", "{run}", "--low-res", "{small}/nothing.png"], "no such file"),
    (["sample", "{run}", "--low-res", "{small}/large.npz"], "4×4 pixels, and these are 8×8"),
    (["sample", "{run}", "--low-res", "{small}/mixed"], "differ in size"),
    (["sample", "{run}", "--low-res", "{small}/broken.png"], "cannot be read"),
    (["sample", "{run}", "--low-res", "{small}/bare.npz"], "--label"),
    (["sample", "{run}", "--low-res", "{small}/pictures"], "--label"),
    (["sample", "{run}", "--low-res", "{small}/strange.npz"], "no class '17'"),
    (["evaluate", "{run}"], "super-resolution run, which has no metrics"),
    (["train", "digits-upsampler", "--set", "model.low_res=9"], "square and larger"),
    (["train", "toy-moons", "--set", "model.low_res=1"], "not a super-resolution network"),
    (["sample", "{plain}", "--low-res", "{small}/labelled.npz"], "remove low_res (--low-res)"),
]


@pytest.fixture(scope="module")
def plain(tiny_run):
    return tiny_run("toy-moons")


@pytest.mark.parametrize(
    ("arguments", "message"), MISTAKES, ids=[" ".join(arguments) for arguments, _ in MISTAKES]
)
def test_mistakes_get_one_line_and_a_status(capsys, run, plain, small, tmp_path, arguments, message):
    words = [text.format(run=run, small=small[0], plain=plain) for text in arguments]
    status, out, err = call(capsys, *words, *(["--run", tmp_path / "new"] if words[0] == "train" else []))
    assert status not in (0, None)
    assert message in err
    assert len([line for line in err.splitlines() if line.startswith("error: ")]) == 1
    assert "Traceback" not in err + out


def test_blocks_give_what_the_command_gives(run, small):
    """Two blocks of 32: image i mod 5 in sample i, across the border of the blocks."""
    _, images, labels = small
    model = sf.load(run)
    low_res = torch.from_numpy(images)[:, None] / 127.5 - 1
    wrap = lambda model, labels: sf.guidance.ClipX0(model.given(labels))  # noqa: E731
    options = {"labels": labels.tolist(), "conditions": {"low_res": low_res}, "wrap": wrap, "size": 32}
    blocks = sample_blocks(model, sf.samplers.DDIM(), sf.grids.uniform(model.process, 3), 40, 0, **options)
    x = model.data.to_uint8(torch.cat([block.x for block in blocks]))[:, 0].numpy()
    assert close(x, enlarged(run, images, labels, 40))
