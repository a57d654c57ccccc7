# make demo | test | cover | bench | soak | fuzz: each is one command on a machine with Python 3.11+ and make.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Files of tests side by side: most of the time they wait for processes. Each worker has a PostgreSQL of its own.
TEST_WORKERS ?= logical
PYTEST := $(BIN)/python -m pytest -q -n $(TEST_WORKERS) --maxprocesses 8 --dist loadfile
FUZZ_MINUTES ?= 10

.PHONY: demo test lint cover bench soak fuzz clean

$(VENV)/.test: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[test,demo]'
	touch $@

$(VENV)/.bench: $(VENV)/.test
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[test,demo,bench]'
	touch $@

demo: $(VENV)/.test
	$(BIN)/portway demo

lint: $(VENV)/.test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

test: lint
	$(PYTEST) tests

# What the tests' own process runs; branch coverage doubles the time of a test that computes.
cover: $(VENV)/.test
	$(PYTEST) --cov --cov-report=term tests

soak: $(VENV)/.test
	PORTWAY_LONG=1 $(BIN)/python -m pytest -q -s -m soak --timeout=1200 tests

# The property tests again and again, from other seeds each time, for so many minutes or to the first failure.
fuzz: $(VENV)/.test
	end=$$(( $$(date +%s) + 60 * $(FUZZ_MINUTES) )); \
	while [ $$(date +%s) -lt $$end ]; do \
		HYPOTHESIS_PROFILE=fuzz $(PYTEST) --timeout=3600 -m hypothesis tests || exit; \
	done

bench: $(VENV)/.bench
	$(BIN)/python -m bench

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .coverage *.egg-info
