# Two commands on a fresh machine do everything: `make demo` and `make test`.
PYTHON ?= python3
BIN := .venv/bin
WORKERS ?= 2

.PHONY: demo test test-long lint docs bench evidence install
.DEFAULT_GOAL := help

help: ## list the targets
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/'

demo: .venv/runtime ## run the whole pipeline on scanned digits and write runs/digits/report/report.html
	$(BIN)/cgankd run digits --out runs/digits

test: install lint ## every check: format, types, import contracts, tests
	$(BIN)/python -m pytest -n $(WORKERS)

test-long: install lint ## the tests that take longer as well; before a release
	$(BIN)/python -m pytest -n $(WORKERS) -m "long or not long"

lint: install ## format check, lint, types, import contracts
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

docs: install ## rewrite docs/cli.md and the preset table from the code
	$(BIN)/python docs/build.py

bench: install ## measure the claims of speed that need no run, within a quarter of an hour on two cores
	$(BIN)/python -m benchmarks speed

evidence: install ## measure what curated sets are worth; takes hours
	$(BIN)/python -m benchmarks evidence

install: .venv/dev ## make .venv with everything in it, the contributors' tools included

# What the pipeline needs, and what contributors need besides; either way one call of pip. Modules are
# compiled afterwards on all cores, for pip does it on one; not at all would cost each process over a
# second where Python may not write them itself (PYTHONDONTWRITEBYTECODE, as in many containers).
INSTALL = $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile -c constraints.txt
COMPILE = $(BIN)/python -m compileall -qq -j 0 .venv/lib || true # some packages hold files for others

.venv/runtime: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(INSTALL) -e '.[cpu]'
	$(COMPILE)
	touch $@

.venv/dev: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(INSTALL) -e '.[cpu,dev]'
	$(COMPILE)
	touch .venv/runtime $@
