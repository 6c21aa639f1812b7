# make demo      install into .venv, run the quickstart recipe, say where its report is
# make test      install with the test extra, then format, lint, types, tests (minutes) and the share of code they ran
# make test-all  the same, with the slow behaviour tests
# make docs      build the documentation into site/
# Tests run in WORKERS processes, each on one thread: make test WORKERS=4
PYTHON ?= python3
WORKERS ?= 2
BIN := .venv/bin
IN_PARALLEL := -n $(WORKERS) --dist worksteal
# SlipCover rewrites bytecode, so that a line costs once; a tracer (coverage.py) doubles the time on Python 3.11.
MEASURED := $(BIN)/python -m slipcover --json --out .coverage.json \
	--source src/espalier,nas,supernets,predictors,pruning,export,recipes

.PHONY: demo test test-all docs checks format clean

demo: .venv/installed
	$(BIN)/nas run quickstart

test: checks
	$(MEASURED) -m pytest $(IN_PARALLEL)
	$(BIN)/python tests/print_coverage.py .coverage.json

test-all: checks
	$(MEASURED) -m pytest $(IN_PARALLEL) -m ""
	$(BIN)/python tests/print_coverage.py .coverage.json

docs: .venv/installed-test
	$(BIN)/mkdocs build --strict

checks: .venv/installed-test
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: .venv/installed-test
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

.venv/installed: pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet -e '.[nni]'
	touch $@

.venv/installed-test: .venv/installed
	$(BIN)/pip install --quiet -e '.[test]'
	touch $@

clean:
	rm -rf .venv build site src/*.egg-info .coverage.json
