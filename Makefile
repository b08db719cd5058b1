# Everything runs in .venv, which is made from the pinned lock on first use.
PYTHON ?= python3
BIN := .venv/bin
MPICH := mpich==5.0.2
export PATH := $(CURDIR)/$(BIN):$(PATH)

# The weights in checkpoint/ and filters on a virtual trial. SIZE=full: 48 patients at six doses, many hours.
SIZE ?= reduced

.PHONY: demo trial test test-slow fuzz soak lint format clean

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

trial: .venv/.installed
	python scripts/trial.py --out_dir results/trial --size $(SIZE)

# A worker per core, each on one thread; the tests of a file share what they start from.
PYTEST := OMP_NUM_THREADS=1 python -m pytest -n auto --dist loadfile

test: .venv/.installed
	$(PYTEST)

test-slow: .venv/.installed
	$(PYTEST) -m slow

# Damaged files for every reader; kills, stops, flips, full disks and second runs for inference and training.
MINUTES ?= 30
fuzz: .venv/.installed
	python -m tests.fuzz --minutes $(MINUTES)

soak: .venv/.installed
	python -m tests.soak --minutes $(MINUTES)

lint: .venv/.installed
	ruff check .
	ruff format --check .

format: .venv/.installed
	ruff check --fix .
	ruff format .

# What make has built; not results/, where scripts/test.py writes by default.
clean:
	rm -rf .venv build *.egg-info
