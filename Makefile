# Everything runs in a virtual environment of its own, made on first use with uv. Nothing but Python 3.11+, make and git is needed.
PYTHON ?= $(shell for p in python3.12 python3.11 python3.13 python3 python; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 && command -v $$p && break; done)
VENV ?= .venv
RUN = $(VENV)/bin
# a file's tests stay together, and files of slow tests come first (tests/conftest.py), so that both workers end at once
PYTEST = $(RUN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder
DATA ?=
OUT ?= demo
unexport PYTHONDONTWRITEBYTECODE  # without stored bytecode every process would compile torch anew, 15 seconds each

.PHONY: help setup setup-bench demo check test test-stores lint torture figures docs bench bench-gpu clean

help:  ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 14

setup: $(VENV)/.ready  ## make the virtual environment and install the package

$(VENV)/.ready: pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "error: Python 3.11 or newer is needed; set PYTHON=/path/to/python3.11"; exit 2; }
	@test -x $(RUN)/python || $(PYTHON) -m venv $(VENV) || $(PYTHON) -m virtualenv $(VENV)
	@test -x $(RUN)/uv || $(RUN)/python -m pip install --quiet --disable-pip-version-check uv
	$(RUN)/uv pip install --python $(RUN)/python --constraint constraints.txt --editable '.[test]'
	@touch $@

setup-bench: setup  ## add the peers that the benchmarks compare with
	$(RUN)/uv pip install --python $(RUN)/python --quiet --constraint constraints.txt --editable '.[bench]'

demo: setup  ## the main job, end to end, on the embedded default: under 10 minutes on 2 cores
	$(RUN)/synthgen demo --out $(OUT)

check: lint  ## lint and the fast tests: under 2 minutes
	$(PYTEST) -m "not slow and not torture" tests

test: setup  ## all tests: under 10 minutes on 2 cores, no GPU, no network
	$(PYTEST) -m "not torture" tests

test-stores: setup  ## shards in a bucket of an S3 server started here
	$(RUN)/uv pip install --python $(RUN)/python --quiet --constraint constraints.txt --editable '.[stores]'
	$(RUN)/python -m pytest tests/shards/test_s3.py

lint: setup  ## ruff, its format and the type checker
	$(RUN)/ruff check .
	$(RUN)/ruff format --check .
	$(RUN)/basedpyright

torture: setup  ## the full counts of kills and hostile inputs: up to an hour; writes benchmarks/results/torture.json
	$(RUN)/python -m pytest -m torture tests

figures: setup  ## every figure in the pages, written anew from benchmarks/results/
	$(RUN)/python -m benchmarks.figures

docs: setup  ## the documentation as a site in build/site, references written from the code
	$(RUN)/python -m mkdocs build --quiet
	@echo build/site/index.html

bench: setup-bench  ## every CPU measurement; writes benchmarks/results/*.json (add DATA=cohort.h5 for figures on your own cubes)
	$(RUN)/python -m benchmarks.run $(if $(DATA),--data $(DATA))

bench-gpu: setup  ## every GPU measurement and check, under 9 minutes; writes benchmarks/results/gpu.json
	$(RUN)/python -m benchmarks.gpu

clean:  ## remove the virtual environment and build files
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .ruff_cache
