"""The Edit panel's server: fillings keep what is known, and everything has the bytes of the library's commands."""

from __future__ import annotations

import hashlib
import io
import shlex
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from studio_page import Page, frame
from support import call

import scorefield as sf
from scorefield.data.user_images import images_of

LENGTHS = [3, 2, 6, 2, 6, 2, 43]  # a mask of 8×8: two columns of three rows


def sent(page: Page, content: bytes, run: str = "digits", status: int = 200) -> Any:
    answer = page.client.post(f"/api/edit/images?run={page.run(run)}", content=content)
    assert answer.status_code == status, answer.text
    return answer.json()


def held_out(page: Page, index: int = 0) -> Any:
    return page.post(f"/api/edit/held-out?run={page.run('digits')}&index={index}", {})


def as_file(array: np.ndarray, kind: str = "PNG") -> bytes:
    file = io.BytesIO()
    Image.fromarray(array).save(file, kind)
    return file.getvalue()


def pixels(page: Page, image: str) -> np.ndarray:
    answer = page.client.get(f"/api/edit/images/{image}/pixels")
    shape = tuple(map(int, answer.headers["X-Shape"].split(",")))
    return np.frombuffer(answer.content, np.uint8).reshape(shape)[0].copy()


def test_fillings_keep_the_known_part_and_are_those_of_the_command(
    capsys, monkeypatch, tmp_path: Path, page: Page
) -> None:
    image = held_out(page, 7)
    request = {
        "run": page.run("digits"), "image": image["id"], "mask": LENGTHS, "n": 5, "block": 2, "sampler": "ddim",
        "steps": 4, "labels": [3], "seed": 9,
    }  # fmt: skip
    planned = page.start(request, "fill")
    *steps, done = page.events(planned["id"])
    assert [one["i"] for one in steps if one["event"] == "step"] == [1, 2, 3, 4]
    filled, known = frame(page, planned["id"], 4), np.ones(64, bool).reshape(8, 8)
    known[:3, 3:5] = False
    assert (filled[:, known] == pixels(page, image["id"])[known]).all()
    estimate = frame(page, planned["id"], 2, "x0")
    assert (estimate[:, known] == pixels(page, image["id"])[known]).all()
    assert (filled[:, ~known] != pixels(page, image["id"])[~known]).any()

    monkeypatch.chdir(tmp_path)
    for name, answer in (
        ("image.png", page.client.get(f"/api/edit/images/{image['id']}/image.png")),
        ("mask.png", page.client.post(f"/api/edit/images/{image['id']}/mask.png", json={"mask": LENGTHS})),
    ):
        (tmp_path / name).write_bytes(answer.content)
    assert page.post("/api/edit/plan", {"kind": "fill", "request": request})["command"] == planned["command"]
    status, _, err = call(capsys, *shlex.split(planned["command"])[1:])
    assert status == 0, err
    images = np.load(tmp_path / "samples.npz")["images"]
    assert hashlib.sha256(images.tobytes()).hexdigest() == done["sha256"]
    assert np.array_equal(images, filled[..., 0])
    names: dict[str, sf.Samples] = {}
    exec(planned["python"], names)  # a line that the page offers to copy
    assert np.array_equal(names["samples"].images, images)


def test_an_image_to_its_latent_and_back(page: Page, root: Path) -> None:
    image = held_out(page, 2)
    assert image["label_name"] == str(image["label"])
    assert image["count"] > 2
    request = {"run": page.run("digits"), "image": image["id"], "label": 3, "steps": 5}
    planned = page.start(request, "encode")
    *steps, done = page.events(planned["id"])
    assert planned["calls"] == done["calls"] == 15  # up, down to measure the error, and down again
    assert [one["i"] for one in steps if one["event"] == "step"] == list(range(1, 16))
    run, given = sf.Run(root / "digits"), pixels(page, image["id"])
    latents = run.encode(given[None, ..., 0], 3, steps=5, check=1)
    assert done["mse"] == latents.reconstruction_mse
    assert np.array_equal(frame(page, planned["id"], 0)[0], given)
    back = run.decode(latents).images
    assert np.array_equal(frame(page, planned["id"], 2)[..., 0], back)
    assert done["largest"] == np.abs(back.astype(int) - given[..., 0]).max()


def test_walks_are_those_of_the_library(page: Page, root: Path) -> None:
    image, run = held_out(page), sf.Run(root / "digits")
    for a, b in ((4, 5), (image["id"], 5)):
        request = {"run": page.run("digits"), "a": a, "b": b, "frames": 3, "label": 2, "steps": 3}
        planned = page.start(request, "walk")
        *_, done = page.events(planned["id"])
        start = a if isinstance(a, int) else pixels(page, a)[..., 0]
        walk = run.interpolate(start, 5, 3, 2, steps=3)
        found = np.concatenate([frame(page, planned["id"], i) for i in range(3)])
        assert np.array_equal(found[..., 0], walk.images)
        assert done["cosine"] == walk.cosine
        assert done["calls"] == planned["calls"]


def test_the_commands_of_latents_run(capsys, monkeypatch, tmp_path: Path, page: Page) -> None:
    image = held_out(page)
    monkeypatch.chdir(tmp_path)
    content = page.client.get(f"/api/edit/images/{image['id']}/image.png").content
    for name in ("image.png", "a.png"):
        (tmp_path / name).write_bytes(content)
    request = {"run": page.run("digits"), "label": 3, "steps": 2}
    for kind, more in (
        ("encode", {"image": image["id"]}),
        ("walk", {"a": image["id"], "b": 1, "frames": 2}),
    ):
        planned = page.post("/api/edit/plan", {"kind": kind, "request": {**request, **more}})
        status, _, err = call(capsys, *shlex.split(planned["command"])[1:])
        assert status == 0, err
        exec(planned["python"], {})  # lines that the page offers to copy


def test_images_are_fitted_as_in_training(page: Page, root: Path) -> None:
    array = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    for kind in ("PNG", "WEBP", "JPEG"):
        found = sent(page, content := as_file(array, kind))
        assert found["shape"] == [8, 8, 1]
        assert found["notes"] == ["Cropped to its central square, reduced from 30×20 pixels, made grey."]
        path = root.parent / f"mine.{kind.lower()}"
        path.write_bytes(content)
        spec = sf.Run(root / "digits").data_spec
        fitted = spec.to_uint8(images_of(path, spec).batch(torch.tensor([0]))[0])
        assert np.array_equal(pixels(page, found["id"])[..., 0], fitted[0, 0])


def header(width: int, height: int) -> bytes:
    """A PNG that says it has so many pixels."""
    chunk = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    end = b"IDAT" + zlib.compress(b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(part) - 4) + part + struct.pack(">I", zlib.crc32(part)) for part in (chunk, end)
    )


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"no image", "the image is damaged, or no PNG, JPEG or WebP file"),
        (as_file(np.zeros((9, 9), np.uint8), "GIF"), "no PNG, JPEG or WebP file"),
        (as_file(np.eye(400, dtype=np.uint8))[:400], "the image: cannot be read"),
        (as_file(np.zeros((9, 5), np.uint8)), "this run's images have 8×8"),
        (header(9_000, 9_000), "at most 50,000,000 are decoded"),
    ],
)
def test_what_is_no_image_of_the_run_is_refused(page: Page, content: bytes, sentence: str) -> None:
    assert sentence in sent(page, content, status=400)["error"]


def test_runs_without_latents_and_unknown_images_are_refused(page: Page) -> None:
    for name in ("moons", "upsampler", "classifier"):
        error = sent(page, as_file(np.zeros((32, 32), np.uint8)), name, status=400)["error"]
        assert error.startswith("latents need a run of images with noise levels")
    run, image = page.run("digits"), held_out(page)["id"]
    whole = {"run": run, "image": image, "mask": [64]}
    assert "black everywhere" in page.post("/api/edit/plan", {"kind": "fill", "request": whole})["refused"]
    for request, status, sentence in (
        ({**whole, "mask": [63]}, 400, "64 pixels"),
        ({**whole, "mask": [65, -1]}, 400, "64 pixels"),
        ({**whole, "image": "0"}, 404, "not kept"),
        ({**whole, "run": page.run("upsampler")}, 400, "another run"),
        ({**whole, "size": 3}, 400, "size"),
    ):
        error = page.post("/api/edit/plan", {"kind": "fill", "request": request}, status)["error"]
        assert sentence in error
    for _ in range(20):
        last = held_out(page)["id"]
    assert page.get(f"/api/edit/images/{image}/pixels", 404)["error"].startswith("this image is not kept")
    assert pixels(page, last).shape == (8, 8, 1)


def test_a_sample_is_edited_and_a_walk_is_cancelled(page: Page) -> None:
    made = page.start({"run": page.run("digits"), "steps": 2, "n": 3, "seed": 1})["id"]
    page.events(made)
    image = page.post(f"/api/edit/jobs/{made}/sample/1", {})
    assert np.array_equal(pixels(page, image["id"]), frame(page, made, 2)[1])
    assert (image["name"], image["label"]) == ("sample 1 of seed 1", 1)
    page.post(f"/api/edit/jobs/{made}/sample/3", {}, 404)
    job = page.start({"run": page.run("digits"), "a": 1, "b": 2, "frames": 64, "steps": 1000}, "walk")["id"]
    page.client.delete(f"/api/jobs/{job}")
    assert page.events(job)[-1]["event"] == "cancelled"
