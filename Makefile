# `make demo` and `make test` need Python 3.11 or newer and make; they install the rest into .venv.
PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed

.PHONY: demo test lint bench clean

# A learning rate for a small network on scikit-learn's digits, then training with it: plots and
# reports under runs/demo.
demo: $(STAMP)
	$(BIN)/lrtool find configs/digits.yaml --output runs/demo/find --overwrite
	$(BIN)/lrtool train configs/digits.yaml --lr-from runs/demo/find --output runs/demo/train --overwrite

test: $(STAMP)
	$(BIN)/python -m pytest -n auto --dist worksteal

lint: $(STAMP)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

# Speed against a plain loop and the peers, which live in an environment of their own.
bench: .venv-bench/.installed
	.venv-bench/bin/python benchmarks/speed.py

.venv-bench/.installed: pyproject.toml constraints.txt benchmarks/requirements.txt
	test -x .venv-bench/bin/python || $(PYTHON) -m venv .venv-bench
	.venv-bench/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e . -r benchmarks/requirements.txt
	touch $@

clean:
	rm -rf .venv .venv-bench build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -c "import sys; sys.exit('lrtool needs Python 3.11 or newer: make PYTHON=python3.11') if sys.version_info < (3, 11) else None"
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev]"
	touch $@
