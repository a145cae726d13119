# Every target makes its own .venv first, if there is none or the lock has changed.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready

.DEFAULT_GOAL := help
.PHONY: help run test lint bench collector docs docs-check lock clean

help:  ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-11s %s\n", $$1, $$2}' Makefile

$(READY): requirements-dev.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo 'Python 3.11 or newer is needed; name one with PYTHON=…, for example: make run PYTHON=python3.12' >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-dev.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

run: $(READY)  ## the whole service against the built-in sandbox; no account needed
	@$(BIN)/perfpower-exporter run --sandbox

test: $(READY)  ## all tests, with the branches of the pure middle counted
	$(BIN)/coverage erase
	$(BIN)/coverage run -m pytest
	$(BIN)/coverage report --fail-under=100 --include='exporter/appstore/payloads/*,exporter/appstore/plan.py,exporter/appstore/discovery.py,exporter/appstore/quota.py,exporter/appstore/versions.py,exporter/convert/*,exporter/assets/*,exporter/otlp/encode.py,exporter/otlp/passed_on.py' --show-missing

lint: $(READY)  ## ruff, mypy --strict, and who may import whom
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

bench: $(READY)  ## speed and memory beside the plain path, in one run
	@$(BIN)/python -m bench

collector: $(READY)  ## a real OpenTelemetry Collector for the tests; needs Go, and some minutes the first time
	@$(BIN)/python -m tests.collector.build

docs: $(READY)  ## write the pages that are generated from the code
	@$(BIN)/python docs/generate.py

docs-check: $(READY)  ## fail when a generated page, a link or an example no longer agrees with the code
	@$(BIN)/python docs/generate.py --check

lock: $(READY)  ## resolve the dependencies anew into the two lock files
	$(BIN)/python -m pip install --quiet --disable-pip-version-check 'uv>=0.8'
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --upgrade --no-header pyproject.toml -o requirements.lock
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header --group dev -c requirements.lock pyproject.toml -o requirements-dev.lock

clean:  ## remove what make made here
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache .coverage build dist *.egg-info sandbox-state
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
