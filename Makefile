# `make demo` and `make test` need Python 3.11 or newer and make; they install the rest into .venv.
PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed
AXE := .venv/axe/node_modules/axe-core/axe.min.js

.PHONY: demo test lint fuzz bench regret regret-quick clean

# A learning rate for a small network on handwritten digits, then training with it: plots and
# reports under runs/demo. In one thread: on busy cores, several would wait for one another.
demo: export OMP_NUM_THREADS := 1
demo: $(STAMP)
	$(BIN)/lrtool find configs/digits.yaml --output runs/demo/find --overwrite
	$(BIN)/lrtool train configs/digits.yaml --lr-from runs/demo/find --output runs/demo/train --overwrite

# One thread a process: torch's threads would wait for those of the other tests. Pages are tested in
# Chromium (of Debian: `apt-get install chromium npm`), with axe-core from npm; without either, tests say
# which of them they skip, and with BROWSER_TESTS=required they fail. Many tests wait for processes of
# their own: so one worker more than cores.
test: $(STAMP) $(AXE)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $$(($(PROCESSES) + 1)) --dist worksteal

$(AXE): | $(STAMP)
	npm install --silent --prefix .venv/axe axe-core@4.14.1 || echo "no axe-core: tests of accessibility are skipped"

lint: $(STAMP)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

# Damaged data files, configurations and run directories, kills, and ranks that fail, from a seed. Some minutes; failures are saved.
SEED ?= 0
fuzz: export OMP_NUM_THREADS := 1
fuzz: $(STAMP)
	$(BIN)/python tests/fuzz/fuzz.py data --count 1000 --seed $(SEED)
	$(BIN)/python tests/fuzz/fuzz.py configurations --count 2000 --seed $(SEED)
	$(BIN)/python tests/fuzz/fuzz.py runs --count 1000 --seed $(SEED)
	$(BIN)/python tests/cli/kill_loop.py --runs 20 --seed $(SEED)
	$(BIN)/python tests/cli/rank_failures.py --runs 200 --seed $(SEED)

# Speed against a plain loop and the peers, which live in an environment of their own; then of several ranks.
bench: .venv-bench/.installed
	.venv-bench/bin/python -m benchmarks.speed
	.venv-bench/bin/python -m benchmarks.ranks

# How well the suggested rates train, beside the peers and simple rules: everything from nothing, for
# tasks trained from nothing and for other kinds. What is already measured is kept under runs/regret.
# In one thread a process, so many at once:
PROCESSES ?= $(shell nproc 2>/dev/null || sysctl -n hw.ncpu)
REGRET := -m benchmarks.regret
CELLS ?= published published-new
# find_lr, the same search from a loop of one's own, is measured on the quick cells alone; or by SOURCES.
SOURCES ?= controls lrtool

# Series of the UCR archive: aeon's wheel is only read, not installed.
SERIES := runs/regret/aeon-1.6.0-py3-none-any.whl

regret: $(addprefix regret-of-,$(CELLS))

regret-of-%: $(STAMP) $(SERIES) .venv-bench/.installed .venv-lightning252/.installed
	$(BIN)/python $(REGRET) grids $* --processes $(PROCESSES)
	$(BIN)/python $(REGRET) rates $(SOURCES) $* --processes $(PROCESSES)
	.venv-bench/bin/python $(REGRET) rates peers $* --processes $(PROCESSES)
	.venv-lightning252/bin/python $(REGRET) rates lightning252 $* --processes $(PROCESSES)
	$(BIN)/python $(REGRET) exact $* --processes $(PROCESSES)
	$(BIN)/python $(REGRET) report $*

# The same on a few cells: at most ten minutes on two cores. With those peers that are installed.
regret-quick: $(STAMP)
	$(BIN)/python $(REGRET) grids quick --processes $(PROCESSES)
	$(BIN)/python $(REGRET) rates controls lrtool find_lr quick --processes $(PROCESSES)
	if test -e .venv-bench/.installed; then .venv-bench/bin/python $(REGRET) rates peers quick --processes $(PROCESSES); fi
	if test -e .venv-lightning252/.installed; then .venv-lightning252/bin/python $(REGRET) rates lightning252 quick --processes $(PROCESSES); fi
	$(BIN)/python $(REGRET) exact quick --processes $(PROCESSES)
	$(BIN)/python $(REGRET) report quick

$(SERIES): $(STAMP)
	$(BIN)/python -m pip download --quiet --disable-pip-version-check --no-deps --dest $(@D) aeon==1.6.0
	touch $@

.venv-bench/.installed: pyproject.toml constraints.txt benchmarks/requirements.txt benchmarks/requirements-fastai.txt
	test -x .venv-bench/bin/python || $(PYTHON) -m venv .venv-bench
	.venv-bench/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e . -r benchmarks/requirements.txt
	.venv-bench/bin/python -m pip install --quiet --disable-pip-version-check --no-deps -r benchmarks/requirements-fastai.txt
	touch $@

.venv-lightning252/.installed: pyproject.toml constraints.txt benchmarks/requirements-lightning252.txt
	test -x .venv-lightning252/bin/python || $(PYTHON) -m venv .venv-lightning252
	.venv-lightning252/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e . -r benchmarks/requirements-lightning252.txt
	touch $@

clean:
	rm -rf .venv .venv-bench .venv-lightning252 build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -c "import sys; sys.exit('lrtool needs Python 3.11 or newer: make PYTHON=python3.11') if sys.version_info < (3, 11) else None"
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev]"
	touch $@
