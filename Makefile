# Each target does all its own set-up in .venv and never touches the system's Python.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Two processes; the threads of linear algebra in one would wait, spinning, for those of the other.
PYTEST = OPENBLAS_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadscope
# The tests hold the networks against KerasHub's. What else it asks for, gigabytes of TensorFlow, its images do not need.
KERAS_HUB := keras-hub==0.32.0 regex tokenizers

.PHONY: demo test test-torch check format bench install clean

demo: $(VENV)/.user
	$(BIN)/headstart demo

test: $(VENV)/.dev check
	$(PYTEST) -m "not slow and not torch"
	KERAS_BACKEND=jax $(PYTEST) -m "backend"

test-torch: .venv-torch/.torch
	KERAS_BACKEND=torch .venv-torch/bin/python -m pytest -m "backend or torch"

check: $(VENV)/.dev
	$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy && $(BIN)/lint-imports

format: $(VENV)/.dev
	$(BIN)/ruff format . && $(BIN)/ruff check --fix .

bench: $(VENV)/.dev
	$(BIN)/python benchmarks/run.py

install: $(VENV)/.dev

$(VENV)/.user: pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q -e '.[tensorflow]' && touch $@

$(VENV)/.dev: pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q -e '.[dev]'
	$(BIN)/python -m pip install -q --no-deps $(KERAS_HUB)
	touch $@ $(VENV)/.user

.venv-torch/.torch: pyproject.toml
	test -x .venv-torch/bin/python || $(PYTHON) -m venv .venv-torch
	.venv-torch/bin/python -m pip install -q 'torch==2.13.0' -e '.[test]'
	.venv-torch/bin/python -m pip install -q --no-deps $(KERAS_HUB)
	touch $@

clean:
	rm -rf $(VENV) .venv-torch
