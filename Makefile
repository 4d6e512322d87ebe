# centerdet: everything a person or a machine runs. Needs Python >= 3.10 and the package index.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed

.DEFAULT_GOAL := help
.PHONY: help install run check test soak docs clean
.DELETE_ON_ERROR:

help:  ## show this list
	@echo "usage: make TARGET [PYTHON=python3.12]"
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 18

install: $(STAMP)  ## make .venv and install the package with everything its development needs

run: $(STAMP)  ## predict on photographs, then train, evaluate and predict on drawn shapes (under 4 minutes)
	$(BIN)/python scripts/demo.py

check: $(STAMP)  ## linter, format, types and import layers
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

test: check  ## check, then the fast tests
	$(BIN)/python -m pytest -m "not soak"

soak: $(STAMP)  ## the slow tests
	$(BIN)/python -m pytest -m soak

docs: $(STAMP)  ## build the site of documentation into site/ (Python >= 3.11)
	$(BIN)/zensical build --strict

clean:  ## remove what building and testing left, but not .venv and runs
	rm -rf .cache build dist site *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find centerdet scripts tests -name __pycache__ -type d -prune -exec rm -rf {} +

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
	    { echo "centerdet needs Python >= 3.10; name one: make install PYTHON=python3.12" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(STAMP): pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install -e '.[dev]'
	@touch $@
