# Every target does its own set-up: a virtual environment in .venv with the package in editable mode.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.ready

.PHONY: setup demo test faults lint types bench clean

setup: $(STAMP)

$(STAMP): pyproject.toml
	@$(PYTHON) -c 'import sys; ok = (3, 10) <= sys.version_info[:2] <= (3, 13); sys.exit(0 if ok else "nnunet-fm needs Python 3.10 to 3.13, this is %d.%d; try make PYTHON=python3.12" % sys.version_info[:2])'
	@echo "Setting up $(VENV); torch is large, this takes some minutes."
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet torch torchvision
	$(BIN)/python -m pip install --quiet --editable ".[pretrain,dev]"
	touch $(STAMP)

demo: setup
	$(BIN)/nnunet-fm demo -o demo

test: setup
	$(BIN)/python -m pytest -n 2 --dist loadfile --durations 60

# every command killed at every write, and all other faults; counts in fault_counts.txt
faults: setup
	FAULTS=all FAULT_COUNTS=fault_counts.txt $(BIN)/python -m pytest tests/faults

lint: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types: setup
	$(BIN)/mypy

bench: setup
	cd benchmarks && ../$(BIN)/python -W ignore train_step.py
	cd benchmarks && ../$(BIN)/python -W ignore predict.py
	cd benchmarks && ../$(BIN)/python -W ignore seeded_training.py
	cd benchmarks && ../$(BIN)/python features.py
	cd benchmarks && ../$(BIN)/python -W ignore heads.py
	cd benchmarks && ../$(BIN)/python -W ignore volumes.py
	cd benchmarks && ../$(BIN)/python -W ignore pretrain_data.py
	cd benchmarks && ../$(BIN)/python -W ignore pretrain_step.py
	cd benchmarks && ../$(BIN)/python -W ignore pretrain_volumes.py
	cd benchmarks && ../$(BIN)/python interval_coverage.py

clean:
	rm -rf $(VENV) demo dist build
