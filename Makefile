# centerdet: everything a person or a machine runs. Needs Python >= 3.10 and a package index.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/$(if $(filter Windows_NT,$(OS)),Scripts,bin)
PIP    := $(if $(shell command -v uv),uv pip install --python $(BIN)/python,$(BIN)/python -m pip install)
PYTEST := python -m pytest --numprocesses=logical --maxprocesses=4 --dist=worksteal

.DEFAULT_GOAL := help
.PHONY: help install run check test coverage soak lowest docs release clean
.DELETE_ON_ERROR:

help:  ## show this list
	@echo "usage: make TARGET [PYTHON=python3.12]"
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 18

install: $(VENV)/.dev  ## make .venv and install the package with everything its development needs

run: $(VENV)/.run  ## predict on photographs, then train, evaluate and predict on drawn shapes (under 4 minutes)
	$(BIN)/python scripts/demo.py

check: $(VENV)/.dev  ## linter, format, types and import layers
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

test: check  ## check, then the fast tests on all cores (3 minutes on two)
	$(BIN)/$(PYTEST) -m "not soak"

coverage: $(VENV)/.dev  ## the fast tests with the share of lines that they run (tracing costs two fifths more time)
	$(BIN)/$(PYTEST) -m "not soak and not alone" --cov=centerdet --cov-report=term:skip-covered

soak: coverage  ## coverage, then the slow tests; those that measure time or memory run alone, after the others
	$(PIP) -e '.[ray]' 'atheris; sys_platform == "linux"'
	$(BIN)/$(PYTEST) -m "soak and not alone"
	$(BIN)/python -m pytest -m "soak and alone"

lowest:  ## the fast tests with the oldest versions that pyproject.toml allows, in .venv-lowest (needs uv)
	uv venv --clear --python $(PYTHON) .venv-lowest
	uv pip install --python .venv-lowest --resolution lowest-direct -e '.[dev]'
	.venv-lowest/bin/$(PYTEST) -m "not soak"

docs: $(VENV)/.dev  ## build the site of documentation into site/ (Python >= 3.11)
	$(BIN)/zensical build --strict

release: $(VENV)/.dev  ## wheel and sdist, built twice and compared, and a list of what the wheel needs (SBOM), into dist/
	rm -rf dist
	for folder in dist dist/again; do $(BIN)/python -m build --no-isolation --outdir $$folder || exit 1; done
	for file in dist/again/*; do cmp "$$file" "dist/$${file##*/}" || exit 1; done
	rm -r dist/again
	$(PYTHON) -m venv --clear .venv-release
	.venv-release/bin/python -m pip install dist/*.whl
	$(PYTHON) -m venv --clear .venv-sbom
	.venv-sbom/bin/python -m pip install 'cyclonedx-bom>=5'
	.venv-sbom/bin/cyclonedx-py environment --of JSON -o dist/centerdet.cdx.json .venv-release

clean:  ## remove what building and testing made, but not .venv and runs
	rm -rf .cache .coverage* build dist site *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find centerdet scripts tests -name __pycache__ -type d -prune -exec rm -rf {} +

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
	    { echo "centerdet needs Python >= 3.10; name one: make install PYTHON=python3.12" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

# Two stamps: the demonstration needs neither linters nor docs; development includes all that the demonstration needs.
$(VENV)/.run: pyproject.toml | $(BIN)/python
	$(PIP) -e '.[backbone,demo]'
	@touch $@

$(VENV)/.dev: pyproject.toml | $(BIN)/python
	$(PIP) -e '.[dev]'
	@touch $@ $(VENV)/.run
