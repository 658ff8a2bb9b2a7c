"""Settings of the documentation. `make docs` builds it into docs/_build/html; nothing is read from the network."""

import os
import sys
from pathlib import Path

from jupyter_client.manager import KernelManager

import scorefield

HERE = Path(__file__).parent
sys.path[:0] = [
    str(HERE / "_ext"),
    str(HERE.parent / "tools"),
]  # public names are those of the docstring check

project = "scorefield"
author = "the scorefield authors"
project_copyright = f"{author}, Apache-2.0"
version = release = scorefield.__version__

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "myst_nb",
    "sphinx_design",
    "sphinx_copybutton",
    "scorefield_site",
]
exclude_patterns = ["_build", "_ext", "figures"]
smartquotes = False  # which makes – of the -- of an option

# MyST. Formulas are written in Unicode, in code spans and blocks, so that no page loads a renderer.
myst_enable_extensions = ["attrs_inline", "colon_fence", "deflist"]
myst_heading_anchors = 3

# Notebooks run at build, each again only after a change. `-D nb_execution_mode=off` leaves their pictures out.
nb_execution_mode = "cache"
nb_execution_cache_path = str(HERE / "_build" / "notebooks")
nb_execution_timeout = 900  # seconds a cell
nb_execution_raise_on_error = True
# tqdm warns of a missing widget library, with the path of this environment, in the first output of a notebook.
os.environ["PYTHONWARNINGS"] = "ignore:IProgress not found"
nb_merge_streams = True
# This build and the kernels of the notebooks talk through TCP, which other users of the machine could read otherwise.
KernelManager.transport_encryption.default_value = "auto"
nb_ipywidgets_js: dict[str, dict[str, str]] = {}

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
napoleon_use_ivar = True
autosummary_generate = False
napoleon_numpy_docstring = False
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 80
toc_object_entries_show_parents = "hide"

copybutton_exclude = ".linenos, .gp, .go"
copybutton_prompt_text = "$ "

html_theme = "furo"
html_title = f"scorefield {release}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sphinx = False
html_theme_options = {
    "light_css_variables": {"color-brand-primary": "#3b4cc0", "color-brand-content": "#3b4cc0"},
    "dark_css_variables": {"color-brand-primary": "#9db2ff", "color-brand-content": "#9db2ff"},
}
highlight_language = "none"  # of blocks that name no language: commands and formulas
pygments_style = "friendly"
pygments_dark_style = "monokai"
