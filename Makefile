# make run: set everything up and serve the playground. make test: set everything up and test it.
# With an NVIDIA card `make run` also sets the transformers engine up; without one, `make setup-transformers` does.
VENV ?= .venv
PYTHON ?= python3
PY = $(VENV)/bin/python
unexport PYTHONDONTWRITEBYTECODE  # without what was compiled before, the tests take 5 s longer to be found, in each process

# Torch alone takes 4 s to import, in each process.
WITHOUT_TORCH = --ignore-glob 'tests/backends/adapters/test_hf_*' --ignore tests/test_tiny.py

.PHONY: run setup setup-transformers test check lint fix bench space settings tiny dev npm-is-missing clean

run: setup
	$(PY) app.py $(ARGS)

setup: $(VENV)/.installed $(if $(shell command -v nvidia-smi),setup-transformers)

setup-transformers: $(VENV)/.installed-transformers

$(VENV)/.installed-transformers: $(VENV)/.installed requirements-transformers.txt
	$(PY) -m pip install --quiet --disable-pip-version-check -r requirements.txt -r requirements-transformers.txt
	@touch $@

$(VENV)/.installed: requirements.txt
	$(PYTHON) -m venv $(VENV)
	$(PY) -m pip install --quiet --disable-pip-version-check -r requirements.txt
	@touch $@

dev: $(VENV)/.installed-dev

# axe-core, which the test of accessibility puts into the page, and CommonMark's examples. Nothing of npm is served.
dev: $(if $(shell command -v npm),node_modules/.package-lock.json,npm-is-missing)

node_modules/.package-lock.json: package.json package-lock.json
	npm ci --ignore-scripts --no-audit --no-fund --silent
	@touch $@

npm-is-missing:
	@echo "npm is missing: install the packages 'nodejs' and 'npm'; two tests in a browser need what they bring." >&2

$(VENV)/.installed-dev: requirements.txt requirements-transformers.txt requirements-dev.txt
	$(PYTHON) -m venv $(VENV)
	$(PY) -m pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	@touch $(VENV)/.installed $(VENV)/.installed-transformers $@

# Most of the tests wait for each other's threads more than they compute, so that three workers share two cores. What
# drives a browser, a real model or a crowd has the machine for itself.
FAST = not model and not browser and not crowd
AT_ONCE = $(PY) -m pytest -q -n 3 --dist loadfile -m "$(FAST)"

test: dev
	$(AT_ONCE)
	$(PY) -m pytest -m "not ($(FAST))"

lint: dev
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy
	$(VENV)/bin/lint-imports --cache-dir .import_linter_cache

check: lint
	$(AT_ONCE) --hypothesis-profile quick $(WITHOUT_TORCH)

fix: dev
	$(PY) -m ruff check --fix .
	$(PY) -m ruff format .

bench: dev
	$(PY) -m bench

space: dev
	$(PY) -m tools.space

settings: dev
	$(PY) -m tools.settings

# Trains examples/tiny from nothing (hours on two cores; it goes on where it was interrupted) and measures it.
tiny: $(VENV)/.installed
	$(PY) -m pip install --quiet --disable-pip-version-check -r requirements.txt -r requirements-tiny.txt
	$(PY) -m examples.tiny.train
	$(PY) -m examples.tiny.evaluate

clean:
	rm -rf $(VENV) node_modules .pytest_cache .mypy_cache .ruff_cache .hypothesis
