from __future__ import annotations

import io
import os
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from support import loaded

from scorefield.data import folder, hf, open_source, stream
from scorefield.runtime.errors import InputError

datasets = pytest.importorskip("datasets")


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No network, and a cache of its own."""
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


def table(paint, count: int = 4, channels: int = 3, **columns):
    """A table with the images as bytes."""
    images = [Image.fromarray(paint(12, 10, channels, seed)) for seed in range(count)]
    features = {"picture": datasets.Image()} | {key: kind for key, (kind, _) in columns.items()}
    values = {"picture": images} | {key: list(column) for key, (_, column) in columns.items()}
    return datasets.Dataset.from_dict(values, features=datasets.Features(features))


def test_an_image_folder(pictures: Path) -> None:
    data, expected = hf(str(pictures)), folder(pictures)
    assert data.spec == expected.spec
    assert data.source == f"hf:{pictures}"
    assert torch.equal(loaded(data), loaded(expected))
    assert data.labels is not None
    assert torch.equal(data.labels, expected.labels)


def test_a_parquet_file(tmp_path: Path, paint) -> None:
    kinds = datasets.ClassLabel(names=["cat", "dog", "yak"])
    table(paint, label=(kinds, [1, 0, 1, 0])).to_parquet(tmp_path / "set" / "train.parquet")
    data = hf(str(tmp_path / "set"))
    assert data.values.shape == (4, 3, 12, 10)
    assert data.spec.classes == ("cat", "dog", "yak")
    assert data.labels is not None
    assert data.labels.tolist() == [1, 0, 1, 0]
    assert np.array_equal(loaded(data)[2].permute(1, 2, 0).numpy(), paint(12, 10, 3, 2))
    assert hf(str(tmp_path / "set"), size=8, channels=1).values.shape == (4, 1, 8, 8)
    with pytest.raises(InputError, match="4 of 4 images are smaller than 32×32"):
        hf(str(tmp_path / "set"), size=32)
    assert hf(str(tmp_path / "set"), size=32, upscale=True).values.shape == (4, 3, 32, 32)


def test_what_save_to_disk_wrote(tmp_path: Path, paint) -> None:
    table(paint, channels=1).save_to_disk(tmp_path / "plain")
    data = hf(str(tmp_path / "plain"))
    assert data.values.shape == (4, 1, 12, 10)
    assert data.labels is None
    assert np.array_equal(loaded(data)[3, 0].numpy(), paint(12, 10, 1, 3))
    datasets.DatasetDict(train=table(paint), test=table(paint, count=2)).save_to_disk(tmp_path / "dict")
    assert len(hf(str(tmp_path / "dict"))) == 4
    assert len(hf(str(tmp_path / "dict"), "test")) == 2
    with pytest.raises(InputError, match="no split 'half', only train, test"):
        hf(str(tmp_path / "dict"), "half")


def saved(tmp_path: Path, rows) -> str:
    rows.save_to_disk(tmp_path / "saved")
    return str(tmp_path / "saved")


def test_label_comes_before_other_classes(tmp_path: Path, paint) -> None:
    coarse, fine = datasets.ClassLabel(names=["x", "y"]), datasets.ClassLabel(names=["a", "b", "c", "d"])
    name = saved(tmp_path, table(paint, coarse=(coarse, [0, 0, 1, 1]), label=(fine, [0, 1, 2, 3])))
    assert hf(name).spec.classes == ("a", "b", "c", "d")


@pytest.mark.parametrize(
    ("kind", "values", "classes", "labels"),
    [
        ("int64", [5, -3, 5, 9], ("-3", "5", "9"), [1, 0, 1, 2]),
        ("string", ["b", "a", "b", "b"], ("a", "b"), [1, 0, 1, 1]),
    ],
)
def test_plain_labels_are_numbered(tmp_path: Path, paint, kind: str, values, classes, labels) -> None:
    data = hf(saved(tmp_path, table(paint, labels=(datasets.Value(kind), values))))
    assert data.spec.classes == classes
    assert data.labels is not None
    assert data.labels.tolist() == labels


def test_labels_that_are_lists_are_no_classes(tmp_path: Path, paint) -> None:
    lists = datasets.Sequence(datasets.Value("int64"))
    assert hf(saved(tmp_path, table(paint, labels=(lists, [[1], [], [2, 3], [1]])))).labels is None


def test_missing_labels(tmp_path: Path, paint) -> None:
    kind = datasets.ClassLabel(names=["a", "b"])
    assert hf(saved(tmp_path / "1", table(paint, label=(kind, [-1] * 4)))).labels is None
    with pytest.raises(InputError, match="1 of 4 rows have no label in column 'label'"):
        hf(saved(tmp_path / "2", table(paint, label=(kind, [0, 1, -1, 0]))))
    with pytest.raises(InputError, match="labels must be integers"):
        hf(saved(tmp_path / "3", table(paint, label=(datasets.Value("float32"), [0.5] * 4))))


def test_corrupt_and_missing_pictures_are_skipped(tmp_path: Path, paint) -> None:
    rows = table(paint, label=(datasets.ClassLabel(names=["a", "b"]), [0, 1, 0, 1])).cast_column(
        "picture", datasets.Image(decode=False)
    )
    cells = [dict(cell) for cell in rows["picture"]] + [None]
    cells[1] = {"bytes": b"junk", "path": None}
    features = datasets.Features({"picture": datasets.Image(), "label": rows.features["label"]})
    name = saved(
        tmp_path, datasets.Dataset.from_dict({"picture": cells, "label": [0, 1, 0, 1, 1]}, features=features)
    )
    data = hf(name)
    assert data.skipped == ("row 1", "row 4")
    assert data.labels is not None
    assert data.labels.tolist() == [0, 0, 1]
    assert np.array_equal(loaded(data)[1].permute(1, 2, 0).numpy(), paint(12, 10, 3, 2))
    with pytest.raises(InputError, match=r"2 of 5 images cannot be read.*row 1.*row 4: no image"):
        hf(name, strict=True)


def test_grey_among_colour_is_colour(tmp_path: Path, paint) -> None:
    images = [Image.fromarray(paint(8, 8, 1)), Image.fromarray(paint(8, 8, 3))]
    rows = datasets.Dataset.from_dict(
        {"image": images}, features=datasets.Features({"image": datasets.Image()})
    )
    data = hf(saved(tmp_path, rows))
    assert data.spec.shape == (3, 8, 8)
    assert torch.equal(loaded(data)[0, 0], loaded(data)[0, 2])


def test_different_sizes_need_a_size(tmp_path: Path, paint) -> None:
    images = [Image.fromarray(paint(8, 9)), Image.fromarray(paint(10, 8))]
    name = saved(
        tmp_path,
        datasets.Dataset.from_dict(
            {"image": images}, features=datasets.Features({"image": datasets.Image()})
        ),
    )
    with pytest.raises(InputError, match=r"differ in size \(row 0 is 9×8, row 1 is 8×10\): give the size"):
        hf(name)
    assert hf(name, size=8).values.shape == (2, 3, 8, 8)


def test_tables_without_images_or_rows(tmp_path: Path, paint) -> None:
    with pytest.raises(InputError, match="no column holds images; columns: text"):
        hf(saved(tmp_path / "1", datasets.Dataset.from_dict({"text": ["a"]})))
    table(paint, count=1).select([]).to_parquet(tmp_path / "2" / "train.parquet")
    with pytest.raises(InputError, match=r"the split 'train' is empty|corresponds to no data"):
        hf(str(tmp_path / "2"))


def test_what_cannot_be_loaded(tmp_path: Path, pictures: Path) -> None:
    (tmp_path / "empty").mkdir()
    for name, split in (
        ("no-such-owner/no-such-set", "train"),
        (str(tmp_path / "empty"), "train"),
        (str(pictures), "tset"),
    ):
        with pytest.raises(InputError, match="cannot be loaded") as caught:
            hf(name, split)
        assert "\n" not in str(caught.value)
        assert f"hf:{name}" in str(caught.value)
    with pytest.raises(InputError, match="followed by a data set's name"):
        hf("")


def test_without_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(InputError, match=r"pip install 'scorefield\[hf\]'"):
        hf("cifar10")


@pytest.mark.parametrize("on_demand", [False, True])
def test_of_several_columns_of_images_one_is_named(tmp_path: Path, paint, on_demand: bool) -> None:
    masks = [Image.fromarray(np.full((12, 10), value, np.uint8)) for value in range(4)]
    two = table(paint, mask=(datasets.Image(), masks)).select_columns(["mask", "picture"])
    two.save_to_disk(str(tmp_path / "two"))
    with pytest.raises(InputError, match=r"the columns mask, picture hold images.*data.column"):
        hf(str(tmp_path / "two"), on_demand=on_demand)
    data = hf(str(tmp_path / "two"), on_demand=on_demand, column="picture")
    assert np.array_equal(data.everything()[2].permute(1, 2, 0).numpy(), paint(12, 10, 3, 2))
    with pytest.raises(InputError, match="pictures"):
        hf(str(tmp_path / "two"), column="pictures")
    two.rename_column("picture", "image").save_to_disk(str(tmp_path / "usual"))
    usual = hf(str(tmp_path / "usual"), on_demand=on_demand)
    assert usual.values.shape == (4, 3, 12, 10)
    assert "images are those of column image, not of mask" in usual.reading[-1]


def test_a_column_is_of_hub_data_only(pictures: Path) -> None:
    with pytest.raises(InputError, match="has no columns"):
        open_source(str(pictures), column="image")


def naming(folder: Path, paint, *paths: str) -> str:
    """A local data set of one row with bytes for each row that only names a file."""
    arrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    file = io.BytesIO()
    Image.fromarray(paint(12, 12)).save(file, "PNG")
    cells = [{"bytes": file.getvalue(), "path": None} for _ in paths] + [
        {"bytes": None, "path": path} for path in paths
    ]
    column = arrow.array(cells, arrow.struct({"bytes": arrow.binary(), "path": arrow.string()}))
    schema = datasets.Features({"image": datasets.Image()}).arrow_schema
    folder.mkdir(exist_ok=True)
    parquet.write_table(
        arrow.table({"image": column}).replace_schema_metadata(schema.metadata), folder / "train.parquet"
    )
    return str(folder)


def test_a_row_names_files_of_its_own_folder_only(tmp_path: Path, paint) -> None:
    own, other = tmp_path / "set", tmp_path / "other.png"
    own.mkdir()
    os.mkfifo(own / "pipe.png")
    for path in (own / "inside.png", own / "absolute.png", other):
        Image.fromarray(paint(12, 12, seed=9)).save(path)
    os.symlink("/dev/zero", own / "link.png")
    inside = ["inside.png", str(own / "absolute.png")]
    outside = [
        str(other),
        "../other.png",
        "/dev/zero",
        f"{own}/../other.png",
        f"{own}2/x.png",
        "pipe.png",
        "link.png",
    ]
    name = naming(own, paint, *inside, *outside)
    for data in (hf(name), hf(name, on_demand=True, probe=18, size=12)):
        data.everything()
        names = " ".join(data.skipped or data.values.unreadable.names)
        assert all(path in names for path in outside)
        assert not any(f"{path} (row" in names.replace(f"../{path}", "") for path in inside)
    first = stream(name, size=12, probe=18)
    rows = list(first.rows.first(18))
    assert [row.content is None for row in rows[9:]] == [False] * 2 + [True] * 7


def test_a_table_from_the_hub_names_no_files(tmp_path: Path, paint, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same table, read by a name as on the hub: nothing on this machine is opened for it."""
    name = naming(tmp_path / "set", paint, "/dev/zero", str(tmp_path / "set" / "a.png"), "a.png")
    Image.fromarray(paint(12, 12)).save(tmp_path / "set" / "a.png")
    load = datasets.load_dataset
    monkeypatch.setattr(datasets, "load_dataset", lambda _, **options: load(name, **options))
    data = hf("someone/set", size=12)
    assert len(data) == 3
    assert len(data.skipped) == 3
    with pytest.raises(InputError, match="names a file that is not in the folder of the data"):
        hf("someone/set", size=12, strict=True)
    assert [row.content is None for row in stream("someone/set", size=12).rows.first(6)] == [False] * 3 + [
        True
    ] * 3


def test_pictures_in_a_folder_from_the_hub_are_read_where_they_are_kept(
    pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub.constants

    load = datasets.load_dataset
    monkeypatch.setattr(datasets, "load_dataset", lambda _, **options: load(str(pictures), **options))
    with pytest.raises(InputError, match="cannot be read"):
        hf("someone/pictures")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(pictures.parent))
    assert torch.equal(loaded(hf("someone/pictures")), loaded(folder(pictures)))
