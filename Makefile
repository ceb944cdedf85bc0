# Two commands do everything: `make quickstart` and `make test`. Both set themselves up.
PYTHON ?= python3
CORES ?= $(shell nproc 2>/dev/null || sysctl -n hw.ncpu 2>/dev/null || echo 2)
BIN := .venv/bin
# One compute thread a process: tiny models are slower with two, and the number of threads is part of a result.
PYTEST := OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1 $(BIN)/python -m pytest -q
export PATH := $(CURDIR)/$(BIN):$(PATH)
# A study starts dozens of processes. Where this is set, each would compile torch, transformers and TRL again (8 s).
unexport PYTHONDONTWRITEBYTECODE

.PHONY: quickstart test small setup test-fast lint format lock schemas report clean help

quickstart: setup ## a real comparison from raw text to tables, in minutes on a CPU
	@$(BIN)/marginbench run quickstart --cores $(CORES)

test: setup lint ## everything that must hold
	@$(PYTEST) -n $(CORES) --dist loadfile

small: setup ## the same comparison with several seeds
	@$(BIN)/marginbench run small --cores $(CORES)

setup: ## .venv with pinned dependencies, models and data
	@$(PYTHON) envs/setup.py

test-fast: setup ## the tests that start no process and no model
	@$(PYTEST) -m "not slow"

lint: setup ## formatting and lint of Python and Snakemake files
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/snakefmt --check --compact-diff Snakefile workflow/rules
	@$(BIN)/snakemake --lint

format: setup ## format Python and Snakemake files
	@$(BIN)/ruff check --fix . && $(BIN)/ruff format . && $(BIN)/snakefmt Snakefile workflow/rules

schemas: setup ## write the JSON schemas and ARCHITECTURE.md from the code
	@$(BIN)/marginbench generate

report: setup ## results/quickstart/report.html: one offline file with tables, figures and provenance
	@$(BIN)/snakemake quickstart --report results/quickstart/report.html

lock: setup ## resolve envs/requirements.in again
	@$(BIN)/uv pip compile -q envs/requirements.in --no-emit-index-url --no-emit-find-links --no-header --no-annotate \
	  --no-emit-package torch --generate-hashes --python-version 3.11 -o envs/requirements.lock

clean: ## remove results and Snakemake's records (not .venv)
	rm -rf .snakemake logs results/[!R]*

help: ## this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14
