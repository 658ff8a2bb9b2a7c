"""A file's labels are one numbering: all names, or all positions."""

import numpy as np
import pytest
import torch
from support import call, tiny

import scorefield as sf
from scorefield.data.class_names import class_numbers, split_names


@pytest.mark.parametrize(
    ("names", "known", "numbers"),
    [
        (["0", "1", "2"], ["1", "2", "3"], [0, 1, 2]),  # one at a time: 0, 0, 1
        (["1", "2"], ["1", "2", "3"], [0, 1]),
        (["3", "1"], ["1", "2", "3"], [2, 0]),
        (["0"], ["5", "0"], [1]),
        (["0", "1"], ["5", "0"], [0, 1]),
        (["dog", "cat"], ["cat", "dog"], [1, 0]),
        (["1", "0"], ["cat", "dog"], [1, 0]),
        (["10", "2"], [str(k) for k in range(11)], [10, 2]),
        ([], ["cat"], []),
    ],
)
def test_all_are_names_or_all_are_numbers(names, known, numbers):
    assert class_numbers(names, known) == numbers


@pytest.mark.parametrize(
    ("names", "known"),
    [
        (["0", "1", "4"], ["1", "2", "3"]),
        (["cat", "1"], ["cat", "dog"]),
        (["2"], ["cat", "dog"]),
        (["-1"], ["cat", "dog"]),
        (["bird"], ["cat", "dog"]),
    ],
)
def test_what_is_neither_is_refused_and_named(names, known):
    with pytest.raises(sf.InputError, match=f"f: there is no class '{names[-1]}'"):
        class_numbers(names, known, source="f")


def test_commas_in_names_stay():
    known = ["a, b", "a", "b", "c,d,e"]
    assert split_names("a, b,a,c,d,e, b", known) == ["a, b", "a", "c,d,e", "b"]
    assert split_names("3, 5", known) == ["3", "5"]
    assert split_names(" , a", [" ", "a"]) == [" ", "a"]


def test_a_name_of_several_classes_is_no_class():
    known = ["crane", "crane", "dog"]
    assert class_numbers(["dog"], known) == [2]
    assert class_numbers(["1", "0"], known) == [1, 0]
    with pytest.raises(sf.InputError, match="several classes are called 'crane': give all classes by number"):
        class_numbers(["dog", "crane"], known)
    spec = sf.DataSpec((2,), classes=tuple(known))
    model = sf.Denoiser(sf.nets.MLP(2, hidden=8, layers=1, num_classes=3), sf.process.cosine(20), data=spec)
    with pytest.raises(sf.InputError, match="several classes are called 'crane': give their numbers"):
        model.given("crane")


def test_data_take_the_numbering_of_a_model():
    data = sf.data.tensor(torch.eye(4), torch.tensor([5, 7, 9, 7]))
    again = data.numbered_as(["9", "8", "7", "5"])
    assert again.labels is not None
    assert again.labels.tolist() == [3, 2, 0, 2]
    assert again.spec.classes == ("9", "8", "7", "5")
    assert data.numbered_as(data.spec.classes) is data
    unnamed = data.numbered_as(["0", "1", "2"])  # of a model whose classes have no names: in order
    assert unnamed.labels is not None
    assert unnamed.labels.tolist() == [0, 1, 2, 1]
    with pytest.raises(sf.InputError, match="no class '5'"):
        data.numbered_as(["0", "1", "2", "3"])


def archive(path, **arrays):
    np.savez(path, images=np.zeros((3, 4, 4), np.uint8), **arrays)
    return sf.data.npz(path)


def test_an_archive_says_what_its_labels_are_called(tmp_path):
    data = archive(tmp_path / "a.npz", labels=[2, 0, 2], classes=["x", "y", "z"])
    assert data.spec.classes == ("x", "y", "z")
    assert data.labels is not None
    assert data.labels.tolist() == [2, 0, 2]
    with pytest.raises(sf.InputError, match="`classes` must be the different names"):
        archive(tmp_path / "b.npz", labels=[2, 0, 3], classes=["x", "y", "z"])
    with pytest.raises(sf.InputError, match="`classes` must be the different names"):
        archive(tmp_path / "c.npz", labels=[2, 0, 2], classes=["x", "y", "x"])
    assert archive(tmp_path / "d.npz", labels=["u", "v", "u"], classes=["x", "y"]).spec.classes == ("u", "v")


def test_samples_of_a_run_whose_classes_are_other_numbers(tiny_run, tmp_path):
    """Samples written and read again keep their classes; a file numbered from 0 keeps its three classes apart."""
    generator = np.random.default_rng(0)
    images = generator.integers(0, 255, (40, 8, 8), dtype=np.uint8)
    np.savez(tmp_path / "data.npz", images=images, labels=np.arange(40) % 3 + 1)
    run = sf.Run(tiny_run.copy(tmp_path / "run", "digits"))
    config = (run.path / "config.toml").read_text()
    ten = "".join(f'    "{k}",\n' for k in range(10))
    assert ten in config
    (run.path / "config.toml").write_text(config.replace(ten, "".join(f'    "{k}",\n' for k in range(1, 11))))
    run = sf.Run(run.path)
    assert run.encode(images[:6], steps=2, device="cpu", labels=["0", "1", "2"]).labels == [0, 1, 2, 0, 1, 2]
    np.savez(tmp_path / "zero.npz", images=images[:6], labels=[0, 1, 2, 0, 1, 2])
    assert run.encode(tmp_path / "zero.npz", steps=2, device="cpu").labels == [0, 1, 2, 0, 1, 2]
    samples = run.sample(n=4, labels=[1, 2], steps=2, device="cpu")
    assert samples.classes is not None
    assert samples.classes.tolist() == ["2", "3", "2", "3"]
    assert run.encode(samples, steps=2, device="cpu").labels == [1, 2, 1, 2]
    samples.save(tmp_path / "samples.npz")
    assert run.encode(tmp_path / "samples.npz", steps=2, device="cpu").labels == [1, 2, 1, 2]
    with pytest.raises(sf.InputError, match="no class '0'"):
        run.sample(n=2, labels=["0", "10"], steps=2, device="cpu")


def test_classes_without_examples_are_not_sampled_unless_asked_for(capsys, tmp_path):
    images = np.random.default_rng(0).integers(0, 255, (24, 8, 8), dtype=np.uint8)
    names = np.array(["ant", "bee", "cat", "dog"])
    np.savez(tmp_path / "data.npz", images=images, labels=np.arange(24) % 2 * 2, classes=names)
    run = tmp_path / "run"
    small = tiny("digits", "net={kind='mlp',hidden=8,layers=1}", "training.sample_every=1")
    words = ["train", "digits", "--data", tmp_path / "data.npz", "--run", run, "--steps", 1, *small]
    status, _, err = call(capsys, *words)
    assert status == 0, err
    assert "(2 of them without examples)" in err
    assert sf.Run(run).recipe.trained_on.counts[1::2] == (0, 0)  # type: ignore[union-attr]
    samples = sf.Run(run).sample(n=4, steps=2, device="cpu")
    assert samples.classes is not None
    assert samples.classes.tolist() == ["ant", "cat", "ant", "cat"]
    asked = sf.Run(run).sample(n=1, labels="bee", steps=2, device="cpu")
    assert asked.labels is not None
    assert asked.labels.tolist() == [1]
