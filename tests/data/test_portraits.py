"""The embedded portraits: what the data card says of them holds."""

import pytest
import torch
from support import loaded

import scorefield as sf
from scorefield.data.sources.parse import open_source


def test_what_the_card_says() -> None:
    data = sf.data.portraits()
    assert data.values.shape == (12800, 3, 16, 16)
    assert data.values.dtype == torch.uint8
    assert data.spec.classes == ("plain", "glasses", "hat", "beard")
    assert torch.bincount(data.labels).tolist() == [3200] * 4
    assert len(torch.unique(loaded(data).flatten(1), dim=0)) == len(data)
    for label, name in enumerate(data.spec.classes[1:], start=1):
        assert torch.equal(data.arrays[name], data.labels == label)
    assert set(data.arrays) == {"glasses", "hat", "beard", "happy", "long_hair", "skin_color", "hair_color"}
    assert data.arrays["skin_color"].unique().tolist() == list(range(8))
    assert data.arrays["hair_color"].unique().tolist() == list(range(11))
    assert 0.4 < data.arrays["happy"].double().mean() < 0.7
    assert torch.equal(data.labels[:8], torch.arange(8) % 4)  # the classes take turns


def test_few_colours() -> None:
    red, green, blue = loaded(sf.data.portraits()).int().unbind(dim=1)
    assert len((65536 * red + 256 * green + blue).unique()) == 614


def test_it_is_a_source() -> None:
    assert torch.equal(loaded(open_source("portraits")), sf.data.portraits().values)  # type: ignore[arg-type]
    assert open_source("portraits", size=16, channels=3).spec.shape == (3, 16, 16)
    with pytest.raises(sf.InputError, match="16×16 in colour"):
        open_source("portraits", size=32)
    with pytest.raises(sf.InputError, match="did you mean 'portraits'"):
        open_source("portrait")
