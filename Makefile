# make run    the main job on real data: analysis, training by four strategies, one page     (after a first install)
# make test   all tests                                                                     (installs what they need)
# make lint   ruff and mypy
# make fuzz   many more random programs through the cut than the tests try
# make mutants  change one operator, comparison or constant of the lab at a time: does a test notice?
# make chaos  kill, freeze and cut off workers of real runs in every phase: what does it cost, what is lost?  (two hours; goes on where it was stopped)
# make clean  remove the environment and everything made here

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt
PYTEST ?= $(BIN)/python -m pytest -n 2

.PHONY: run test lint fuzz mutants chaos system clean

run: $(VENV)/installed-run
	$(BIN)/isthmus demo --out runs/demo --replace

test: system $(VENV)/installed-test
	OMP_NUM_THREADS=1 $(PYTEST)

lint: $(VENV)/installed-dev
	$(BIN)/ruff check .
	$(BIN)/mypy

fuzz: $(VENV)/installed-test
	ISTHMUS_FUZZ=5000 ISTHMUS_FUZZ_SEED=1000 $(BIN)/python -m pytest tests/nets/test_fuzz.py -q -n 2 --timeout 0

mutants: $(VENV)/installed-test
	OMP_NUM_THREADS=1 $(BIN)/python tools/mutants.py

chaos: $(VENV)/installed-test
	OMP_NUM_THREADS=1 $(BIN)/python tools/chaos.py table --minutes 120
	OMP_NUM_THREADS=1 $(BIN)/python tools/chaos.py long
	OMP_NUM_THREADS=1 $(BIN)/python tools/chaos.py calm --processes 2 --minutes 60
	$(BIN)/python tools/chaos.py show

# What the tests use beside Python packages: a browser for pages, and real data (images, tables, text). Fetched where
# that is possible (root on Debian); a test that misses one is skipped and says so at the end.
system:
	@./tools/system-packages chromium dataset-fashion-mnist liblinear-tools anarchism

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "isthmus needs Python 3.11 or newer; name one with: make PYTHON=python3.11 ..."; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || ./tools/system-packages python3-venv
	$(PYTHON) -m venv $(VENV)

# Each stamp is an installation that is done; pyproject.toml or constraints.txt newer than it installs again.
$(VENV)/installed-run: pyproject.toml constraints.txt | $(BIN)/python
	@echo "installing isthmus (PyTorch included: about two minutes the first time) ..."
	$(PIP) -e '.[train]'
	@touch $@

$(VENV)/installed-test: pyproject.toml constraints.txt | $(BIN)/python
	@echo "installing isthmus and what its tests need (PyTorch included: about two minutes the first time) ..."
	$(PIP) -e '.[test]'
	@touch $@ $(VENV)/installed-run

$(VENV)/installed-dev: pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) -e '.[dev]'
	@touch $@ $(VENV)/installed-run $(VENV)/installed-test

clean:
	rm -rf $(VENV) runs build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis src/*.egg-info
