# Everything runs in .venv, which is made on first use and reused after that.

PYTHON ?= python3
HOST ?= 127.0.0.1
PORT ?= 7860
ARGS ?=
WORKERS ?= 2

PY := .venv/bin/python
BIOME := npx --yes @biomejs/biome@2.6.8
INSTALL := $(PY) -m pip install --disable-pip-version-check

.PHONY: help demo test browsers lint types docs check format clean
.DELETE_ON_ERROR:

help:
	@echo "make demo     start the app on http://$(HOST):$(PORT)   (HOST=, PORT=, ARGS=\"--share\")"
	@echo "make test     run all tests                       (ARGS=\"-k schedule\", WORKERS=0: in one process)"
	@echo "make browsers open, run, scrub and save in Firefox and WebKit, where they are"
	@echo "make lint     check style, the size of functions and who imports whom"
	@echo "make types    check types with mypy"
	@echo "make docs     build docs/ into site/"
	@echo "make check    test, lint and types"
	@echo "make format   rewrite the code in the project's style"
	@echo "make clean    remove .venv and everything else that was made here"
	@echo
	@echo "PYTHON=python3.12 chooses the Python that makes .venv (3.10 or newer)."

demo: .venv/.runtime
	$(PY) app.py --host $(HOST) --port $(PORT) $(ARGS)

test: .venv/.dev
	$(PY) -m pytest -n $(WORKERS) --dist worksteal $(ARGS)

browsers: .venv/.dev
	$(PY) tests/browsers.py

lint: .venv/.dev
	$(PY) -m ruff check
	$(PY) -m ruff format --check
	.venv/bin/lint-imports
	@if command -v npx >/dev/null; then $(BIOME) check; \
	elif [ -n "$$REQUIRE_NODE" ]; then echo "npx not found: install Node.js and npm" >&2; exit 1; \
	else echo "NO CHECK OF JAVASCRIPT AND CSS: npx not found; install Node.js and npm"; fi

types: .venv/.dev
	$(PY) -m mypy

docs: .venv/.docs
	$(PY) -m mkdocs build --strict --quiet

check: test lint types

format: .venv/.dev
	$(PY) -m ruff check --fix
	$(PY) -m ruff format
	@if command -v npx >/dev/null; then $(BIOME) check --write; fi

clean:
	rm -rf .venv .pytest_cache .mypy_cache .ruff_cache .import_linter_cache build dist site *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

.venv/.runtime: requirements.txt
	@$(PY) -m pip --version >/dev/null 2>&1 || { \
	  command -v $(PYTHON) >/dev/null 2>&1 \
	    || { echo "$(PYTHON) not found: install Python 3.10 or newer, or say make PYTHON=..." >&2; exit 1; }; \
	  $(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' \
	    || { echo "$$($(PYTHON) --version 2>&1) is too old: 3.10 or newer is needed; say make PYTHON=..." >&2; exit 1; }; \
	  $(PYTHON) -c 'import venv, ensurepip' 2>/dev/null \
	    || { echo "$(PYTHON) cannot make virtual environments; on Debian or Ubuntu: apt install python3-venv" >&2; exit 1; }; \
	  echo "Making .venv with $$($(PYTHON) --version)"; \
	  $(PYTHON) -m venv --clear .venv; }
	$(INSTALL) -r requirements.txt
	@touch $@

.venv/.docs: requirements-docs.txt .venv/.runtime
	$(INSTALL) -r requirements-docs.txt
	@touch $@

.venv/.dev: requirements-dev.txt .venv/.runtime
	$(INSTALL) -r requirements-dev.txt
	@touch $@
