PYTHON ?= python3
BIN := .venv/bin

.PHONY: help install quickstart test lint clean

help:  ## what can be made here
	@grep -E '^[a-z]+:.*##' Makefile | sed 's/:.*##/  -/'

.venv/installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "seqrec needs Python 3.11 or newer, found %s. Run make PYTHON=python3.11 …" % sys.version.split()[0])'
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[cpu,dev]'
	touch .venv/installed

install: .venv/installed  ## create .venv and install seqrec with everything a CPU machine needs

quickstart: .venv/installed  ## simulated shop: prepare, train, test, export, recommend (a few minutes)
	$(BIN)/python -m seqrec.quickstart

test: .venv/installed  ## the whole test suite, a process per core
	$(BIN)/python -m pytest -q -n auto --dist loadfile

lint: .venv/installed  ## style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

clean:  ## forget the environment
	rm -rf .venv
