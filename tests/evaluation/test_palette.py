"""The share of known colours, against comparing every pair of colours."""

import pytest
import torch

from scorefield.evaluation.palette import Palette
from scorefield.runtime.errors import InputError


def images(count, channels, seed, most=256):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, most, (count, channels, 4, 5), generator=generator, dtype=torch.uint8)


def colours(x):
    return x.movedim(1, 0).flatten(1).T.short()  # (pixels, channels)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("within", [0, 1, 12, 60])
def test_share_is_that_of_comparing_every_colour(channels, within):
    known, asked = images(6, channels, 0), images(9, channels, 1)
    distance = (colours(asked)[:, None] - colours(known)).abs().amax(dim=2).amin(dim=1)
    expected = (distance <= within).double().reshape(9, 20).mean(dim=1)
    found = Palette(channels, within).add(known[:2]).add(known[2:]).share(asked)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
    print(f"{channels} channels, within {within}: {float(found.mean()):.3f}")


def test_own_images_are_in_their_palette():
    known = images(6, 3, 2, most=4)
    palette = Palette(3, 0).add(known)
    assert palette.share(known).tolist() == [1.0] * 6
    assert len(palette) == len(colours(known).unique(dim=0))


def test_added_colours_count_from_then_on():
    first, second = (torch.full((1, 3, 2, 2), value, dtype=torch.uint8) for value in (10, 200))
    palette = Palette(3, 5).add(first)
    assert palette.share(second).tolist() == [0.0]
    assert palette.add(second).share(second).tolist() == [1.0]


def test_other_images_are_refused():
    with pytest.raises(InputError, match="1 or 3 channels"):
        Palette(2, 5)
    with pytest.raises(InputError, match="within must be"):
        Palette(3, 300)
    with pytest.raises(InputError, match="uint8"):
        Palette(3, 5).add(torch.zeros(1, 3, 2, 2))
    with pytest.raises(InputError, match="takes uint8 images"):
        Palette(3, 5).share(torch.zeros(1, 1, 2, 2, dtype=torch.uint8))
