# Every target makes what it needs: a virtual environment in .venv with the pinned versions.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
RUN := runs/portraits
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

# Nothing is trained in these tests.
FAST := tests/core tests/process tests/runtime \
	tests/models/test_categorical_denoiser.py tests/models/test_denoiser.py tests/models/test_guidance.py tests/models/test_noisy_classifier.py \
	tests/objectives/test_score_matching.py tests/objectives/test_score_matching_golden.py tests/objectives/test_times.py \
	tests/objectives/test_vlb.py tests/objectives/test_weighting.py \
	tests/nets/test_mlp.py tests/nets/test_networks.py tests/samplers/test_ddim_family.py tests/samplers/test_grids.py \
	tests/interop/test_cards.py tests/store/test_writers.py tests/test_golden_files.py tests/test_layout.py

.DEFAULT_GOAL := help
.PHONY: help demo test test-fast test-slow fuzz mutants lint docs docs-check bench wheel oldest clean

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "scorefield needs Python 3.11 or newer: make PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)
	$(PIP) "torch==2.13.0"
	$(PIP) -e ".[dev]"
	touch $@

demo: $(VENV)/.installed  ## train on portraits in colour (a second time: go on), then sample, edit and evaluate
	$(BIN)/scorefield train portraits --run "$(RUN)" $$(test ! -e "$(RUN)/config.toml" || echo --resume)
	$(BIN)/scorefield sample "$(RUN)" -n 40 --out "$(RUN)/portraits.png" --trajectory "$(RUN)/denoising.gif"
	$(BIN)/scorefield interpolate "$(RUN)" 1 2 --frames 16 --label glasses --out "$(RUN)/walk.gif"
	$(BIN)/python examples/paint_a_hat.py "$(RUN)" --out "$(RUN)/hats.png"
	$(BIN)/scorefield evaluate "$(RUN)" --metrics fd,copies,palette --features classifier -n 500 --sets 1
	@echo "the pictures: $(RUN)/portraits.png, denoising.gif, walk.gif and hats.png"

# The tests of a file go to one process, so that what they share is made once. Each process takes 1 to 2 GB. First the package is
# compiled, which every process that the tests start would do by itself where PYTHONDONTWRITEBYTECODE is set.
WORKERS := 2
test: $(VENV)/.installed  ## run the tests in two processes (WORKERS=4: in four), and list the 20 slowest
	$(BIN)/python -m compileall -q src
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder --durations=20

test-fast: $(VENV)/.installed  ## run the tests of the mathematics and the structure: no training, under a minute
	$(BIN)/python -m pytest $(FAST)

test-slow: $(VENV)/.installed  ## run the long tests, which train for minutes and print what they measure
	$(BIN)/python -m pytest -m slow -s

MINUTES := 10
SEED := 0
fuzz: $(VENV)/.installed  ## try hostile commands, files and calls: make fuzz MINUTES=60 SEED=1
	$(BIN)/python tests/fuzz/fuzz.py --minutes $(MINUTES) --seed $(SEED)

mutants: $(VENV)/.installed  ## plant mistakes one at a time, and see that tests find them
	$(BIN)/python tests/mutants/run_mutants.py -j 2

lint: $(VENV)/.installed  ## check style, format, types and docstrings
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python tools/check_docstrings.py

# The site: docs/_build/html/index.html opens from the file system. Its notebooks run when they have changed; the cache is docs/_build/notebooks.
docs: $(VENV)/.installed  ## build the site, with its notebooks, into docs/_build/html
	$(BIN)/python -m sphinx -q -W --keep-going docs docs/_build/html
	@echo "the site: docs/_build/html/index.html"

docs-check: $(VENV)/.installed  ## build the site without running its notebooks
	$(BIN)/python -m sphinx -q -W --keep-going -D nb_execution_mode=off docs docs/_build/check

# Other libraries' networks, without what those libraries ask for: their torchvision does not import beside the CPU's torch, and only
# their data loading uses it.
$(VENV)/.peers: $(VENV)/.installed
	$(PIP) --no-deps azula denoising-diffusion-pytorch einops
	touch $@

bench: $(VENV)/.peers  ## measure speed, memory and start-up beside other libraries and the plain formulas, into runs/performance.json
	$(BIN)/python benchmarks/performance.py network memory startup trainer sampler --json runs/performance.json
	$(BIN)/python benchmarks/score_matching_cost.py

$(VENV)/.release: $(VENV)/.installed
	$(PIP) -e ".[release]"
	touch $@

wheel: $(VENV)/.release  ## build sdist and wheel into dist/, check them, and run the wheel in an empty environment
	rm -rf build dist
	$(BIN)/python -m build --no-isolation --outdir dist
	$(BIN)/twine check --strict dist/*
	$(BIN)/python tools/try_wheel.py dist

# Beside the fast tests those that use the command, decoders, trackers and data sets of others.
oldest: $(VENV)/.release  ## run tests with the lowest versions that pyproject.toml allows
	$(BIN)/python tools/lowest_versions.py $(FAST) tests/data tests/cli/test_cli.py tests/training/test_metrics.py tests/training/test_training.py

clean:  ## remove the environments and build outputs; runs stay
	rm -rf $(VENV) .venv-oldest build dist docs/_build src/*.egg-info
