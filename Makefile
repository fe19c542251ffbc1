# Each target sets up its own virtual environment; when nothing changed that takes no time.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.DEFAULT_GOAL := help
.PHONY: help up test check format bench clean

help:  ## what there is
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 10

up: $(READY)  ## run the samples: containers when Docker answers, else local processes
	@KNLOCAL_BASE_IMAGE="$${KNLOCAL_BASE_IMAGE:-$$($(BIN)/python samples/base_image.py)}" \
	  $(BIN)/knlocal up $(ARGS)

test: $(READY)  ## all tests (those that need Docker are skipped, with a reason, without it)
	@$(BIN)/python -m pytest $(ARGS)

check: $(READY)  ## style, types, and the floors that imports must keep
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(READY)  ## rewrite what `check` would complain about
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(READY)  ## the figures, as ratios within one run
	@$(BIN)/python -m benchmarks $(ARGS)

clean:  ## remove the virtual environment and all caches
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache

$(READY): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "knlocal needs Python 3.11 or newer; $(PYTHON) is $$($(PYTHON) -V 2>&1)." \
	       "Try: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "Setting up $(VENV), once: this takes a minute."
	@$(BIN)/python -m pip install -qq --disable-pip-version-check -e '.[dev]'
	@$(BIN)/python -m compileall -q knlocal || true  # as pip does, but for editable packages
	@touch $@
