# Everything runs in .venv, which is made from the pinned lock on first use.
PYTHON ?= python3
BIN := .venv/bin
MPICH := mpich==5.0.2
export PATH := $(CURDIR)/$(BIN):$(PATH)

.PHONY: demo test test-slow lint format clean

# A system MPI is used where there is one; elsewhere mpiexec comes from a wheel.
.venv/.installed: .requirements.lock pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.11")'
	$(PYTHON) -m venv .venv
	$(BIN)/pip install -q -r .requirements.lock
	command -v mpiexec >/dev/null || $(BIN)/pip install -q $(MPICH)
	$(BIN)/pip install -q --no-deps -e .
	touch $@

demo: .venv/.installed
	python scripts/demo.py --out_dir results/demo

test: .venv/.installed
	python -m pytest

test-slow: .venv/.installed
	python -m pytest -m slow

lint: .venv/.installed
	ruff check .
	ruff format --check .

format: .venv/.installed
	ruff check --fix .
	ruff format .

clean:
	rm -rf .venv build results *.egg-info
