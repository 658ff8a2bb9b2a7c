# Every target makes what it needs: a virtual environment in .venv with the pinned versions.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
RUN := runs/demo

.PHONY: demo test test-slow lint bench clean

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "scorefield needs Python 3.11 or newer: make PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt "torch==2.13.0"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev]"
	touch $@

demo: $(VENV)/.installed  ## train on the real digits, sample all ten classes, judge the samples
	rm -rf $(RUN)
	$(BIN)/scorefield train digits --run $(RUN)
	$(BIN)/scorefield sample $(RUN) -n 100 --out $(RUN)/digits.png --trajectory $(RUN)/denoising.gif
	$(BIN)/scorefield evaluate $(RUN) --metrics fd
	@echo "the picture: $(RUN)/digits.png"

test: $(VENV)/.installed
	$(BIN)/python -m pytest

test-slow: $(VENV)/.installed
	$(BIN)/python -m pytest -m slow -s

lint: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# Other libraries' networks, without what those libraries ask for: their torchvision does not import beside the CPU's torch, and only
# their data loading uses it.
$(VENV)/.peers: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps -c constraints.txt azula denoising-diffusion-pytorch einops
	touch $@

bench: $(VENV)/.peers  ## speed, memory and start-up beside other libraries and the plain formulas; every figure in runs/performance.json
	$(BIN)/python benchmarks/performance.py network memory startup trainer sampler --json runs/performance.json
	$(BIN)/python benchmarks/score_matching_cost.py

clean:
	rm -rf $(VENV) runs build dist src/*.egg-info
