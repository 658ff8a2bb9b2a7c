"""encode, decode, interpolate and sample --inpaint: there and back again, files byte for byte, mistakes in
one line.
"""

import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from support import LEARNS, call, frames, loaded

import scorefield as sf
import scorefield.cli
from scorefield.store.latent_file import Latents


@pytest.fixture(scope="module")
def runs(tiny_run, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    (folder / "conditional").symlink_to(tiny_run("digits", *LEARNS))
    (folder / "unconditional").symlink_to(tiny_run("digits", *LEARNS, "model.conditional=false"))
    return folder


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Three digits and their classes as an .npz, folders of classes and pictures; masks; pictures of another
    size.
    """
    folder = tmp_path_factory.mktemp("files")
    data = sf.data.digits()
    images = data.spec.to_uint8(data.batch(torch.tensor([7, 42, 99]))[0])[:, 0].numpy()
    labels = data.labels[[7, 42, 99]].numpy()
    np.savez(folder / "labelled.npz", images=images, labels=labels)
    np.savez(folder / "bare.npz", images=images)
    np.savez(folder / "strange.npz", images=images, labels=labels + 10)
    (folder / "pictures").mkdir()
    for i, image in enumerate(images):
        Image.fromarray(image).save(folder / "pictures" / f"{i}.png")
    mask = np.zeros((8, 8), np.uint8)
    mask[4:] = 255
    Image.fromarray(mask).save(folder / "mask.png")
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(folder / "black.png")
    Image.fromarray(np.zeros((16, 16), np.uint8)).save(folder / "large.png")
    Image.fromarray(np.zeros((8, 6), np.uint8)).save(folder / "narrow.png")
    (folder / "broken.png").write_bytes(b"no picture")
    shutil.copy(folder / "pictures" / "0.png", folder / "7")
    return folder, images, labels


def run_json(capsys, *words):
    status, out, err = call(capsys, *words, "--device", "cpu", "--json")
    assert status == 0, err
    return json.loads(out), err


def test_there_and_back_with_the_images_own_classes(capsys, runs, files, tmp_path):
    folder, images, labels = files
    run = runs / "conditional"
    facts, err = run_json(
        capsys, "encode", run, folder / "labelled.npz", "--out", tmp_path / "z.npz", "--steps", 4
    )
    assert facts["labels"] == labels.tolist()
    assert "mean squared error" in err
    stored = np.load(tmp_path / "z.npz", allow_pickle=False)
    model = sf.load(run)
    grid = sf.grids.uniform(model.process, 4)
    x0 = torch.from_numpy(images)[:, None].float().mul(16 / 255).round() / 8 - 1  # the digits' own 17 levels
    expected = sf.latents.encode(model.given(labels.tolist()), x0, grid)
    assert stored["latents"].dtype == np.float32
    assert np.allclose(stored["latents"], expected.numpy(), atol=1e-4)
    assert stored["grid"].tolist() == grid.tolist()
    assert stored["labels"].tolist() == labels.tolist()

    back = sf.latents.decode(model.given(labels.tolist()), expected, grid)
    assert facts["reconstruction_mse"] == pytest.approx(float(((back - x0) / 2).square().mean()), rel=1e-3)
    for target in ("back.npz", "back.png", "back"):
        told, _ = run_json(capsys, "decode", run, tmp_path / "z.npz", "--out", tmp_path / target)
        assert told == {
            "out": str(tmp_path / target),
            "n": 3,
            "steps": 4,
            "labels": labels.tolist(),
            "weights": "ema",
        }
    arrays = np.load(tmp_path / "back.npz")
    assert (
        np.mean(arrays["images"] != model.data.to_uint8(back)[:, 0].numpy()) < 0.02
    )  # rounding at a level's edge
    assert arrays["labels"].tolist() == labels.tolist()
    singles = [np.asarray(Image.open(path)) for path in sorted((tmp_path / "back").iterdir())]
    assert np.array_equal(np.stack(singles), arrays["images"])


def test_classes_by_label_and_runs_without_classes(capsys, runs, files, tmp_path):
    folder, _, _ = files
    facts, _ = run_json(
        capsys,
        "encode",
        runs / "conditional",
        folder / "pictures",
        "--out",
        tmp_path / "a.npz",
        "--steps",
        2,
        "--label",
        "4,5",
    )
    assert facts["labels"] == [4, 5, 4]
    words = [folder / "labelled.npz", "--out", tmp_path / "b.npz", "--grid", "quadratic", "--steps", 2]
    facts, _ = run_json(capsys, "encode", runs / "unconditional", *words)
    assert facts["labels"] is None
    assert "labels" not in np.load(tmp_path / "b.npz").files
    run_json(capsys, "decode", runs / "unconditional", tmp_path / "b.npz", "--out", tmp_path / "b.png")


def test_a_walk_between_seeds_needs_no_label(capsys, runs, tmp_path):
    """It is of the class of their sample 0, as `sample` makes it."""
    words = ["interpolate", runs / "conditional", 1, 2, "--frames", 2, "--steps", 2, "--out"]
    assert run_json(capsys, *words, tmp_path / "a.png")[0]["label"] == 0
    run_json(capsys, *words, tmp_path / "b.png", "--label", 0)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


@pytest.mark.parametrize("run", ["conditional", "unconditional"])
def test_a_walk_begins_and_ends_where_it_should(capsys, runs, files, tmp_path, run, monkeypatch):
    """Frame 0 is sample 0 of the seed; the last frame is the decoded picture. A file called 7 is told from
    seed 7.
    """
    folder = files[0]
    monkeypatch.chdir(folder)
    label = ["--label", "3"] if run == "conditional" else []
    steps = ["--steps", 2]
    written = []
    for a in ("7", "./7"):
        target = tmp_path / "walk.png"
        facts, _ = run_json(
            capsys,
            "interpolate",
            runs / run,
            a,
            "pictures/1.png",
            "--frames",
            3,
            "--out",
            target,
            *steps,
            *label,
        )
        assert facts["frames"] == 3
        assert facts["label"] == (3 if label else None)
        sheet = np.asarray(Image.open(target))
        side = (sheet.shape[1] - 2) // 3 - 2
        cells = [
            sheet[2 : 2 + side, 2 + k * (side + 2) :][:, :side][
                side // 16 :: side // 8, side // 16 :: side // 8
            ]
            for k in range(3)
        ]
        written.append(cells)
    sampled = [
        "sample",
        runs / run,
        "-n",
        1,
        "--seed",
        7,
        "--sampler",
        "ddim",
        *steps,
        *label,
        "--out",
        tmp_path / "s.npz",
    ]
    assert call(capsys, *sampled)[0] == 0
    assert np.mean(written[0][0] != np.load(tmp_path / "s.npz")["images"][0]) < 0.05
    encoding = [
        "encode",
        runs / run,
        folder / "pictures" / "1.png",
        "--out",
        tmp_path / "z.npz",
        *steps,
        *label,
    ]
    assert call(capsys, *encoding)[0] == 0
    assert call(capsys, "decode", runs / run, tmp_path / "z.npz", "--out", tmp_path / "back.npz")[0] == 0
    back = np.load(tmp_path / "back.npz")["images"][0]
    for cells in written:
        assert np.mean(cells[2] != back) < 0.05
    assert not np.array_equal(written[0][0], written[1][0])
    gif = [*("1", "2", "--frames", 5, "--out", tmp_path / "walk.gif"), *steps, *label]
    run_json(capsys, "interpolate", runs / run, *gif)
    assert 3 <= frames(tmp_path / "walk.gif") <= 5  # equal neighbours may be merged


@pytest.mark.parametrize("sampler", ["ancestral", "ddim", "langevin"])
def test_inpainting_keeps_the_known_pixels_byte_for_byte(capsys, runs, files, tmp_path, sampler):
    folder, images, _ = files
    words = ["sample", runs / "conditional", "-n", 4, "--sampler", sampler, "--steps", 2, "--label", "3"]
    given = ["--inpaint", folder / "pictures" / "0.png", folder / "mask.png"]
    assert call(capsys, *words, *given, "--out", tmp_path / "a.npz")[0] == 0
    filled = np.load(tmp_path / "a.npz")["images"]
    assert (filled[:, :4] == images[0, :4]).all()
    assert len({image.tobytes() for image in filled}) == 4
    few = [*words, *given, "--out", tmp_path / "b.npz"]
    few[3] = 2
    assert call(capsys, *few)[0] == 0
    assert np.mean(np.load(tmp_path / "b.npz")["images"] != filled[:2]) < 0.05  # sample i whatever the number


def test_inpainting_into_a_folder(capsys, runs, files, tmp_path):
    folder, images, _ = files
    words = ["sample", runs / "unconditional", "-n", 3, "--steps", 2, "--out", tmp_path / "filled"]
    status, _, err = call(capsys, *words, "--inpaint", folder / "pictures" / "2.png", folder / "mask.png")
    assert status == 0, err
    made = sorted((tmp_path / "filled").rglob("*.png"))
    assert len(made) >= 3
    for path in made:
        assert (np.asarray(Image.open(path))[:4] == images[2, :4]).all()
    status, _, err = call(capsys, *words, "--inpaint", folder / "pictures" / "1.png", folder / "mask.png")
    assert status == 1
    assert "with other settings" in err


def test_images_of_another_size_are_fitted_as_in_training_and_it_is_said(capsys, runs, files, tmp_path):
    """Twice as large, with a frame at the sides that is cropped: what is left is the digit."""
    _, images, labels = files
    large = np.zeros((3, 16, 24), np.uint8)
    large[:, :, 4:20] = images.repeat(2, axis=1).repeat(2, axis=2)
    np.savez(tmp_path / "large.npz", images=large, labels=labels)
    Image.fromarray(large[0]).save(tmp_path / "one.png")
    expected = sf.data.folder(tmp_path, size=8, channels=1)
    run = sf.Run(runs / "conditional")
    found = run.encode(tmp_path / "large.npz", steps=2, device="cpu")
    same = run.encode(loaded(expected)[0].numpy(), labels=int(labels[0]), steps=2, device="cpu")
    assert np.allclose(found.latents[0], same.latents[0], atol=1e-3)
    words = ["--steps", 2, "--label", 3, "--device", "cpu"]
    one = tmp_path / "one.png"
    mask = np.zeros((16, 24), np.uint8)
    mask[8:] = 255
    Image.fromarray(mask).save(tmp_path / "mask.png")
    for line in (
        ["encode", runs / "conditional", one, "--out", tmp_path / "z.npz"],
        ["interpolate", runs / "conditional", 1, one, "--out", tmp_path / "w.gif"],
        [
            "sample",
            runs / "conditional",
            "-n",
            1,
            "--out",
            tmp_path / "s.npz",
            "--inpaint",
            one,
            tmp_path / "mask.png",
        ],
    ):
        status, _, err = call(capsys, *line, *words)
        assert status == 0, err
        assert "of 24×16 pixels are resized to 8×8, 1 of them cropped" in err
    filled = np.load(tmp_path / "s.npz")["images"]
    known = run.data_spec.to_uint8(
        run.data_spec.from_bins(run.data_spec.to_bins(loaded(expected)[:1] / 127.5 - 1))
    )
    assert np.array_equal(filled[0, :4], known[0, 0, :4].numpy())


MISTAKES = [
    (["encode", "{run}", "{files}/none.npz", "--out", "{tmp}/z.npz"], "no such file"),
    (["encode", "{run}", "{files}/none.png", "--out", "{tmp}/z.npz"], "no such file"),
    (["encode", "{run}", "{files}/broken.png", "--out", "{tmp}/z.npz"], "cannot be read"),
    (["encode", "{run}", "{files}/narrow.png", "--out", "{tmp}/z.npz"], "smaller than 8×8"),
    (["encode", "{run}", "{files}/bare.npz", "--out", "{tmp}/z.npz"], "--label"),
    (["encode", "{run}", "{files}/strange.npz", "--out", "{tmp}/z.npz"], "no class '17'"),
    (["encode", "{run}", "{files}/labelled.npz", "--out", "{tmp}/z.png"], "written as .npz"),
    (["encode", "{run}", "{files}/labelled.npz", "--out", "{tmp}/none/z.npz"], "there is no folder"),
    (
        ["encode", "{run}", "{files}/labelled.npz", "--out", "{tmp}/z.npz", "--grid", "cubic"],
        "grid must be one of",
    ),
    (
        ["encode", "{run}", "{files}/labelled.npz", "--out", "{tmp}/z.npz", "--steps", "1001"],
        "from 1 to 1000",
    ),
    (["encode", "{plain}", "{files}/labelled.npz", "--out", "{tmp}/z.npz", "--label", "3"], "unconditional"),
    (["encode", "{tmp}", "{files}/labelled.npz", "--out", "{tmp}/z.npz"], "is not a run"),
    (["decode", "{run}", "{files}/none.npz", "--out", "{tmp}/a.png"], "no such file"),
    (["decode", "{run}", "{files}/labelled.npz", "--out", "{tmp}/a.png"], "no `latents`"),
    (["decode", "{run}", "{files}/broken.png", "--out", "{tmp}/a.png"], "not an .npz archive"),
    (["decode", "{run}", "{tmp}/plain.npz", "--out", "{tmp}/a.png"], "different weights"),
    (
        ["decode", "{run}", "{tmp}/unlabelled.npz", "--out", "{tmp}/a.png"],
        "no labels, but the run needs",
    ),
    (["decode", "{run}", "{tmp}/nan.npz", "--out", "{tmp}/a.png"], "NaN"),
    (["decode", "{run}", "{tmp}/shape.npz", "--out", "{tmp}/a.png"], "float32 (N, 1, 8, 8)"),
    (["decode", "{run}", "{tmp}/label.npz", "--out", "{tmp}/a.png"], "labels must lie in 0"),
    (
        ["decode", "{run}", "{tmp}/grid.npz", "--out", "{tmp}/a.png"],
        "grid.npz: give the grid in the order of decoding, descending from noise",
    ),
    (["decode", "{run}", "{tmp}/plain.npz", "--out", "{tmp}/a.jpg"], "written as .png"),
    (["decode", "{run}", "{tmp}/plain.npz", "--out", "{files}"], "not an empty folder"),
    (["interpolate", "{run}", "1", "{files}/pictures/1.png", "--out", "{tmp}/a.gif"], "--label"),
    (["interpolate", "{run}", "1", "2", "--out", "{tmp}/a.gif", "--label", "3,4"], "class of all frames"),
    (["interpolate", "{run}", "1", "2", "--out", "{tmp}/a.npz", "--label", "3"], ".gif"),
    (["interpolate", "{run}", "1", "2", "--out", "{tmp}/none/a.gif", "--label", "3"], "there is no folder"),
    (["interpolate", "{run}", "1", "2", "--out", "{tmp}/a.gif", "--label", "3", "--frames", "1"], "frames"),
    (
        ["interpolate", "{run}", "1", "two", "--out", "{tmp}/a.gif", "--label", "3"],
        "neither an image file nor a seed",
    ),
    (
        ["interpolate", "{run}", "1", "{files}/pictures", "--out", "{tmp}/a.gif", "--label", "3"],
        "holds 3 images",
    ),
    (["interpolate", "{run}", "1", "9" * 60, "--out", "{tmp}/a.gif", "--label", "3"], "seed"),
    (
        ["interpolate", "{run}", "1", "{files}/narrow.png", "--out", "{tmp}/a.gif", "--label", "3"],
        "smaller than 8×8",
    ),
    (["sample", "{run}", "--inpaint", "{files}/none.png", "{files}/mask.png"], "no such file"),
    (["sample", "{run}", "--inpaint", "{files}/7", "{files}/large.png"], "nothing would be inpainted"),
    (["sample", "{run}", "--inpaint", "{files}/narrow.png", "{files}/mask.png"], "smaller than 8×8"),
    (["sample", "{run}", "--inpaint", "{files}/7", "{files}/black.png"], "nothing would be inpainted"),
    (["sample", "{run}", "--inpaint", "{files}/7", "{files}/pictures"], "a mask is one image"),
    (["sample", "{run}", "--inpaint", "{files}/pictures", "{files}/mask.png"], "holds 3"),
    (["sample", "{run}", "--inpaint", "{files}/7"], "--inpaint"),
]


@pytest.fixture(scope="module")
def spoiled(runs, tmp_path_factory):
    """Files of latents, each wrong in one way."""
    from scorefield.runtime.weights import file_sha256

    folder = tmp_path_factory.mktemp("spoiled")
    mine, others = (
        file_sha256(runs / name / "model.safetensors") for name in ("conditional", "unconditional")
    )
    x, grid = torch.zeros(2, 1, 8, 8), [1000, 500, 0]
    Latents(x, None, grid, others).save(folder / "plain.npz")  # type: ignore[arg-type]
    Latents(x, None, grid, mine).save(folder / "unlabelled.npz")  # type: ignore[arg-type]
    Latents(x / 0, [1, 2], grid, mine).save(folder / "nan.npz")  # type: ignore[arg-type]
    Latents(x[..., :4], [1, 2], grid, mine).save(folder / "shape.npz")  # type: ignore[arg-type]
    Latents(x, [1, 10], grid, mine).save(folder / "label.npz")  # type: ignore[arg-type]
    Latents(x, [1, 2], grid[::-1], mine).save(folder / "grid.npz")  # type: ignore[arg-type]
    return folder


@pytest.mark.parametrize(
    ("arguments", "message"), MISTAKES, ids=[" ".join(arguments) for arguments, _ in MISTAKES]
)
def test_mistakes_get_one_line_and_a_status(capsys, runs, files, spoiled, arguments, message):
    places = {"run": runs / "conditional", "plain": runs / "unconditional", "files": files[0], "tmp": spoiled}
    status, out, err = call(capsys, *(text.format(**places) for text in arguments))
    assert status not in (0, None)
    assert message in err
    assert len([line for line in err.splitlines() if line.startswith("error: ")]) == 1
    assert "Traceback" not in err + out


@pytest.fixture(scope="module")
def others(tiny_run, tmp_path_factory):
    """Runs that have no latents."""
    folder = tmp_path_factory.mktemp("others")
    (folder / "classifier").symlink_to(tiny_run("digits-classifier", *LEARNS))
    (folder / "upsampler").symlink_to(tiny_run("digits-upsampler"))
    (folder / "categories").symlink_to(tiny_run("digits-categorical"))
    (folder / "points").symlink_to(tiny_run("toy-moons"))
    (folder / "score").symlink_to(tiny_run("toy-moons", "objective.kind=score-matching"))
    return folder


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("classifier", "is a classifier"),
        ("upsampler", "super-resolution run"),
        ("categories", "categorical model"),
        ("points", "shape (2,); use sf.latents.encode"),
        ("score", "without noise levels"),
    ],
)
def test_runs_without_latents_are_refused_with_the_reason(capsys, others, files, tmp_path, name, message):
    np.savez(tmp_path / "z.npz", latents=np.zeros((1, 1, 8, 8), np.float32))
    for words in (
        ["encode", others / name, files[0] / "labelled.npz", "--out", tmp_path / "a.npz"],
        ["decode", others / name, tmp_path / "z.npz", "--out", tmp_path / "a.png"],
        ["interpolate", others / name, "1", "2", "--out", tmp_path / "a.gif"],
    ):
        status, _, err = call(capsys, *words)
        assert status == 1
        assert message in err
    if name != "upsampler":
        target = tmp_path / "filled"
        status, _, err = call(
            capsys,
            "sample",
            others / name,
            "--inpaint",
            files[0] / "7",
            files[0] / "mask.png",
            "--out",
            target,
        )
        assert status == 1
        assert "error:" in err
        assert not target.exists()


@pytest.mark.parametrize("command", ["encode", "decode", "interpolate"])
def test_help(capsys, command):
    status, out, _ = call(capsys, command, "--help")
    assert status == 0
    assert "--json" in out
    assert command in call(capsys, "--help")[1]
