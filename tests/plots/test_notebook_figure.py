"""Figures that a notebook shows without pyplot."""

import io
import subprocess
import sys

from PIL import Image

import scorefield as sf
from scorefield.plots.style import new_figure


def test_a_notebook_gets_a_sharp_picture_and_the_figure_stays_as_it_was():
    figure = new_figure(4, 2)
    figure.subplots().plot([0, 1], [0, 1])
    own = figure.dpi
    with Image.open(io.BytesIO(figure._repr_png_())) as picture:
        assert picture.size == (4 * 144, 2 * 144)
    assert figure.dpi == own


def test_the_door_loads_no_matplotlib_before_something_is_drawn():
    code = "import sys, scorefield as sf; sf.plots.draw_bound; print('matplotlib' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "False"
    assert set(sf.plots.__all__) <= set(dir(sf.plots))
