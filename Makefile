# Everything runs in .venv, which is made from the pinned lock on first use.
PYTHON ?= python3
BIN := .venv/bin
MPICH := mpich==5.0.2
export PATH := $(CURDIR)/$(BIN):$(PATH)

# The comparison of the shipped weights with filters on held-out virtual subjects: hours on two cores.
SUBJECTS ?= 16
DOSES := 1,1/2,1/4,1/10,1/20,1/50,1/100
EVALUATION := results/evaluation

.PHONY: demo evaluate test test-slow fuzz soak lint format clean

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

evaluate: .venv/.installed
	mpiexec -n 2 python scripts/simulate.py --preset demo --subjects $(SUBJECTS) --seed 3 --split test --doses $(DOSES) --out $(EVALUATION)/test
	mpiexec -n 2 python scripts/simulate.py --preset demo --subjects 4 --seed 2 --split validation --doses $(DOSES) --out $(EVALUATION)/validation
	mpiexec -n 2 python scripts/test.py --base_samples $(EVALUATION)/test --model_path checkpoint/demo_ddpm3d.pt --save_dir $(EVALUATION)/ddpm3d --resume True
	python evaluation/compare.py --trial $(EVALUATION)/test --validation $(EVALUATION)/validation --method ddpm3d=$(EVALUATION)/ddpm3d --out $(EVALUATION)
	@echo "table: $(EVALUATION)/table.md"

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

clean:
	rm -rf .venv build results *.egg-info
