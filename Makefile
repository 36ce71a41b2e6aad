# make install  pdex-gpu with its plots, in .venv
# make demo     simulate a screen, run differential expression on it, show the strongest hits
# make check    lint, types, import layers and the quick tests: while you work, two minutes
# make test     lint and test: before you send a change, twelve minutes
#
# All need Python 3.11 to 3.14 and pip, and make their own environment in .venv.
# Choose an interpreter with PYTHON: make test PYTHON=python3.12

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help
.PHONY: help install demo docs check test test-all test-thorough test-slow test-hostile test-peers test-cupy test-images test-gpu lint notebooks bench bench-files bench-comparisons bench-cluster bench-scaling bench-raw-counts bench-conditional bench-null-rates bench-gpu gpu-first clean

VENV := .venv
BIN := $(VENV)/bin
CANDIDATES := python3.14 python3.13 python3.12 python3.11 python3 python
# An interpreter counts only if it runs (a version manager's stub may not) and has pip.
PROBE := import sys, venv, pip; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 14))
PYTHON ?= $(shell for p in $(CANDIDATES); do \
	if "$$p" -c '$(PROBE)' >/dev/null 2>&1; then echo "$$p"; break; fi; done)
WORKERS ?= 2
PYTEST_ARGS ?=

help:
	@sed -n 's/^# \{0,1\}//p' Makefile | sed -n 1,7p
	@echo "also: make lint, make docs, make test-all, make test-thorough, make test-hostile, make test-peers, make test-cupy,"
	@echo "make test-images, make test-slow, make test-gpu, make gpu-first (all that only a GPU can tell),"
	@echo "make bench (benchmarks/cpu.py), make bench-files (benchmarks/files.py), make bench-gpu (benchmarks/gpu.py), make clean,"
	@echo "make bench-comparisons (benchmarks/comparisons.py), make bench-cluster (benchmarks/cluster.py),"
	@echo "make bench-scaling (benchmarks/scaling.py), make bench-raw-counts (benchmarks/raw_counts.py),"
	@echo "make bench-conditional (benchmarks/conditional.py), make bench-null-rates (benchmarks/null_rates.py)"

$(BIN)/python:
	@if [ -z "$(PYTHON)" ] || ! "$(PYTHON)" -c '$(PROBE)' >/dev/null 2>&1; then \
		echo "pdex_gpu needs Python 3.11 to 3.14 with pip; tried: $(or $(PYTHON),$(CANDIDATES))." >&2; \
		echo "Install one (Debian, Ubuntu: apt-get install python3 python3-pip python3-venv)," >&2; \
		echo "or name yours: make test PYTHON=/path/to/python3.12" >&2; \
		exit 1; \
	fi
	@echo "Creating $(VENV) with $$("$(PYTHON)" --version) ..."
	@rm -rf $(VENV)
	@# Debian's Python may come without ensurepip; its pip can fill an environment all the same.
	@"$(PYTHON)" -m venv $(VENV) >/dev/null 2>&1 || { \
		rm -rf $(VENV); \
		"$(PYTHON)" -m venv --without-pip $(VENV); \
		"$(PYTHON)" -m pip --python $(BIN)/python install --quiet pip; }

$(VENV)/.installed: pyproject.toml $(BIN)/python
	@echo "Installing pdex_gpu ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable ".[plot]"
	@touch $@

$(VENV)/.test: pyproject.toml $(BIN)/python
	@echo "Installing pdex_gpu and its test tools ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable ".[dev]"
	@touch $@ $(VENV)/.installed

install: $(VENV)/.installed

demo: $(VENV)/.installed
	@$(BIN)/pdex-gpu demo

lint: $(VENV)/.test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# Pages are tried in Chromium and Firefox; without one, and no way to install it, its tests are
# skipped.
$(VENV)/.browser: $(BIN)/python
	@found() { for name in "$$@"; do command -v $$name >/dev/null && return; done; false; }; \
	missing=; \
	found chromium chromium-browser google-chrome || missing=chromium; \
	found firefox-esr firefox || missing="$$missing firefox-esr"; \
	if [ "$$missing" ] && [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
		echo "Installing $$missing ..."; \
		{ apt-get update && apt-get install -y --no-install-recommends $$missing; } \
			>$(VENV)/browser.log 2>&1 || tail -3 $(VENV)/browser.log; \
	fi; \
	touch $@

# What `make test` leaves out, and `make test-all` runs by the other targets.
LEFT_OUT := thorough or hostile or slow or image

# A file goes to one worker, which makes what its tests share once.
WORKERS_BY_FILE = -n $(WORKERS) --dist loadfile

# The inner loop: every kernel set but the emulated devices, and neither what starts processes nor
# what stands on other packages.
NOT_CHECKED := $(addprefix --ignore tests/unit/,aggregation compat pl sources/test_dask_arrays.py \
	sources/test_zarr_stores.py engines/test_shared_memory.py engines/test_worker_start.py)

check: lint
	$(BIN)/python -m pytest $(WORKERS_BY_FILE) -m "not ($(LEFT_OUT))" -k "not emulated" \
		tests/unit tests/contract $(NOT_CHECKED) $(PYTEST_ARGS)

test: lint $(VENV)/.browser
	$(BIN)/python -m pytest $(WORKERS_BY_FILE) -m "not ($(LEFT_OUT))" $(PYTEST_ARGS)

# What continuous integration runs. No test is run twice.
test-all: test test-thorough test-hostile test-peers test-cupy test-images

# More of what other tests try.
test-thorough: $(VENV)/.test $(VENV)/.browser
	$(BIN)/python -m pytest -n $(WORKERS) -m "thorough and not (hostile or slow or image)" \
		$(PYTEST_ARGS)

# Hostile calls, files and faults from a generator; PDEX_GPU_HOSTILE_CASES, _FILES and _FAULTS say
# how many. Any of them by number: `python -m hostile --help`, in tests/support.
test-hostile: $(VENV)/.test
	$(BIN)/python -m pytest -n $(WORKERS) -m hostile $(PYTEST_ARGS)

# What takes minutes each, and no other target runs.
test-slow: $(VENV)/.test
	$(BIN)/python -m pytest -n $(WORKERS) -m slow $(PYTEST_ARGS)

# Builds the container images and runs them, where there is something to do it with.
test-images: $(VENV)/.test
	$(BIN)/python -m pytest -m image $(PYTEST_ARGS)

# Results in the packages that people use next, which do not all install together.
PEERS := tests/peers

$(VENV)/peers-%/.done: tests/peers/requirements-%.txt pyproject.toml $(BIN)/python
	@echo "Installing the packages of $< ..."
	@rm -rf $(@D)
	@$(BIN)/python -m venv --without-pip $(@D)
	@$(BIN)/python -m pip --python $(@D)/bin/python install --quiet --disable-pip-version-check \
		--editable . -r $<
	@touch $@

test-peers: $(VENV)/peers-0.8/.done $(VENV)/peers-0.6/.done
	$(VENV)/peers-0.8/bin/python -m pytest $(PEERS) $(PYTEST_ARGS)
	$(VENV)/peers-0.6/bin/python -m pytest $(PEERS)/test_cell_eval.py $(PYTEST_ARGS)

# The seam on the real CuPy, which compiles without a device. It lies next to the environment, as
# other tests try what happens where there is none.
CUPY := $(VENV)/cupy

$(CUPY)/.done: tests/requirements-cupy.txt $(VENV)/.test
	@echo "Installing the packages of $< ..."
	@rm -rf $(@D)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --target $(@D) -r $<
	@touch $@

test-cupy: $(CUPY)/.done
	PYTHONPATH=$(CUPY) $(BIN)/python -c "import cupy; cupy.cuda.nvrtc.getVersion()"
	PYTHONPATH=$(CUPY) $(BIN)/python -m pytest tests/device/test_cuda_device.py $(PYTEST_ARGS)

# Needs a CUDA device, and CuPy for it in .venv.
test-gpu: $(VENV)/.test
	$(BIN)/python -m pytest -m gpu $(PYTEST_ARGS)

# Execute the example notebooks, draw the gallery, and keep what they show.
NOTEBOOKS := $(basename $(notdir $(wildcard docs/notebooks/*.ipynb)))

notebooks: $(VENV)/.test $(VENV)/peers-0.8/.done
	$(BIN)/python docs/notebooks/execute.py $(filter-out from_scanpy,$(NOTEBOOKS))
	$(VENV)/peers-0.8/bin/python docs/notebooks/execute.py from_scanpy
	$(BIN)/python docs/draw_gallery.py

# The site, in docs/_build/html.
docs: $(VENV)/.test
	$(BIN)/python -m sphinx -q -W --keep-going -n -b html docs docs/_build/html

bench: $(VENV)/.test
	$(BIN)/python benchmarks/cpu.py

# Needs 10 GB of disk and half an hour.
bench-files: $(VENV)/.test
	$(BIN)/python benchmarks/files.py

bench-comparisons: $(VENV)/.test
	$(BIN)/python benchmarks/comparisons.py

bench-cluster: $(VENV)/.test
	$(BIN)/python benchmarks/cluster.py

bench-scaling: $(VENV)/.test
	$(BIN)/python benchmarks/scaling.py

bench-raw-counts: $(VENV)/.test
	$(BIN)/python benchmarks/raw_counts.py

bench-conditional: $(VENV)/.test
	$(BIN)/python benchmarks/conditional.py

bench-null-rates: $(VENV)/.test
	$(BIN)/python benchmarks/null_rates.py

# Needs a CUDA device, and CuPy for it in .venv; says what to install.
bench-gpu: $(VENV)/.test
	$(BIN)/python benchmarks/gpu.py --cpu

# The first half hour on a machine with a CUDA driver; continues where it was stopped.
gpu-first: $(VENV)/.test
	$(BIN)/python benchmarks/gpu_first.py

clean:
	rm -rf $(VENV) build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis pdex-gpu-demo
	find . -name __pycache__ -type d -not -path './.git/*' -prune -exec rm -rf {} +
