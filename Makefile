# make           the environment, then the release of the checkpoint that params.yaml names,
#                and the report of it, artifacts/report.html
# make test      the fast tests          make test-all   and the slow ones
# make bench     speed and memory        make check      ruff, mypy and the layers
# make test-runtimes   the demo by every runtime that can be had; writes docs/deployment.md
# make mutants MUTANTS="MODULES --tests FOLDER"   what the fast tests don't notice
# The slow tests of a release's page need a browser: apt-get install chromium

PYTHON ?= python3
VENV   := .venv
export PATH := $(abspath $(VENV))/bin:$(PATH)
export DVC_NO_ANALYTICS := 1
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: release env test test-slow test-all test-runtimes check bench mutants

release: env
	python -m checkpoint_release.core.dvc_files
	dvc repro
	checkpoint-release report

env: $(VENV)/installed

# Two lists of pins: what computes a release, which every stage watches, and what tests it.
$(VENV)/installed: constraints.txt constraints-dev.txt pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed, and $(PYTHON) is " + sys.version.split()[0])'
	$(PYTHON) -m venv $(VENV)
	pip install --quiet --requirement constraints.txt --requirement constraints-dev.txt
	pip install --quiet --no-deps --no-build-isolation --editable .
	touch $@

test: env check
	pytest -n 2 --dist loadfile

test-slow: env
	pytest -n 2 --dist worksteal -m slow $(SLOW_ARGUMENTS)

test-all: test test-slow

# Gigabytes of runtimes, once; they are kept in ~/.cache/checkpoint-release/runtimes.
test-runtimes: env
	python -m tests.runtime_rows $(ROWS)

check: env
	ruff check .
	ruff format --check .
	mypy
	lint-imports

bench: env
	python -m tests.bench

# Without mutmut's own dependencies, which are those of its user interface.
mutants: env
	pip install --quiet --no-deps coverage==7.17.5 libcst==1.9.0 mutmut==3.8.1
	python -m tests.mutants $(MUTANTS)
