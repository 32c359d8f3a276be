# Commands for a fresh clone; each makes the virtual environment in .venv if there is none.
# PYTHON=python3.12 make …         chooses the interpreter that it is made with.
# make install TORCH_INDEX=URL     takes torch and torchvision from that index, built for another CUDA.
# make install SYSTEM_SITE=1       takes what the interpreter has, such as a module's torch.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
LOWEST := .venv-lowest
EXPORTS := tests/tools/export tests/engine/keras_models
BUT_EXPORTS := $(EXPORTS:%=--ignore=%)

.DEFAULT_GOAL := help
.PHONY: help install quickstart test test-export test-slurm test-gpu test-full test-lowest lint schemas notebooks
ifneq ($(SYSTEM_SITE),)
ifneq ($(SYSTEM_SITE),1)
$(error SYSTEM_SITE=$(SYSTEM_SITE): 1 is on; leave it away for an environment of its own)
endif
endif
ifneq ($(TORCH_INDEX)$(SYSTEM_SITE),)
.PHONY: $(INSTALLED)  # another build is wanted, whatever is there
endif

help:  ## list the commands
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

install: $(INSTALLED)  ## make .venv and install the suite and its development tools into it

# pip takes an old torch away once it has the new one; what this needs and is not there comes after.
$(INSTALLED): setup.py
	$(if $(SYSTEM_SITE),,test -x $(BIN)/python ||) $(PYTHON) -m venv $(if $(SYSTEM_SITE),--system-site-packages) $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
ifneq ($(TORCH_INDEX),)
	$(BIN)/python -m pip install --quiet --index-url '$(TORCH_INDEX)' --force-reinstall --no-deps torch torchvision
	$(BIN)/python -m pip install --quiet --index-url '$(TORCH_INDEX)' torch torchvision
endif
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	touch $@

quickstart: $(INSTALLED)  ## train a small Swin Transformer on real images, in a few minutes on a CPU
	$(BIN)/python -m classification.train --config configs/classification/quickstart.yaml

test: $(INSTALLED)  ## run the tests but those of exports (under 10 minutes on 2 cores)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m 'not full and not slurm' -n 3 --dist worksteal $(BUT_EXPORTS)

test-export: $(INSTALLED)  ## run the tests of exports and of Keras's models, with the packages of pip and npm that they need
	$(BIN)/python -m pip install --quiet --editable '.[dev,export,keras]'
	npm install --silent --prefix .node onnxruntime-web@1.30 sharp || echo "no packages of npm here: tests skip node" >&2
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m 'not full' -n 2 --dist worksteal -rs $(EXPORTS)

test-slurm: $(INSTALLED)  ## run the tests on a real Slurm of two nodes on this machine (needs root, slurm-wlm and munge)
	$(BIN)/python -m pytest -m slurm tests/slurm

test-gpu: $(INSTALLED)  ## check on one GPU, in five minutes, what only a GPU shows; JSON=FILE also writes it there
	$(BIN)/python -m tests.gpu $(if $(JSON),--json '$(JSON)')

test-full: $(INSTALLED)  ## run every test, those too long for each change included
	$(BIN)/python -m pytest

test-lowest:  ## run the fast tests with the lowest versions that setup.py allows, in an environment of its own
	test -x $(LOWEST)/bin/python || $(PYTHON) -m venv $(LOWEST)
	$(LOWEST)/bin/python -m pip install --quiet --constraint constraints/lowest.txt --editable '.[dev]'
	OMP_NUM_THREADS=1 $(LOWEST)/bin/python -m pytest -m 'not full and not slurm' -n 2 --dist worksteal

lint: $(INSTALLED)  ## check style, format and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/mypy notebooks/*.py

schemas: $(INSTALLED)  ## write configs/schema from the configuration's types
	$(BIN)/python -m tools.schemas

notebooks: $(INSTALLED)  ## run the notebooks and write them with their outputs beside their sources, in some minutes
	$(BIN)/python -m pip install --quiet --editable '.[dev,notebooks]'
	$(BIN)/python -m tools.notebooks
