# make run: set everything up and serve the playground. make test: set everything up and test it.
VENV ?= .venv
PYTHON ?= python3
PY = $(VENV)/bin/python

.PHONY: run setup test check fix bench space dev clean

run: setup
	$(PY) app.py $(ARGS)

setup: $(VENV)/.installed

$(VENV)/.installed: requirements.txt
	$(PYTHON) -m venv $(VENV)
	$(PY) -m pip install --quiet --disable-pip-version-check -r requirements.txt
	@touch $@

dev: $(VENV)/.installed-dev

$(VENV)/.installed-dev: requirements.txt requirements-dev.txt
	$(PYTHON) -m venv $(VENV)
	$(PY) -m pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	@touch $@ $(VENV)/.installed

test: dev
	$(PY) -m pytest

check: dev
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy
	$(VENV)/bin/lint-imports --cache-dir .import_linter_cache
	$(PY) -m pytest -q -m "not model and not browser"

fix: dev
	$(PY) -m ruff check --fix .
	$(PY) -m ruff format .

bench: dev
	$(PY) -m bench

space: dev
	$(PY) -m tools.space

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis
