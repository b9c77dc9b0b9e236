PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

# What a target needs beyond the pipeline itself; each is installed once.
DEV := $(VENV)/.with-dev
TEST := $(VENV)/.with-test
SERVICES := $(VENV)/.with-services
$(DEV): EXTRAS := local
$(TEST): EXTRAS := local,test
$(SERVICES): EXTRAS := kubernetes,local,production,test

.DEFAULT_GOAL := help
.PHONY: help dev tail test test-libraries test-services test-kubernetes screenshots check bench audit calendar lock clean

help: ## Show this list
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

dev: $(DEV) ## Run everything, with stand-ins for what is not configured
	@exec $(BIN)/python -m market_data_pipeline_dev.dev

tail: $(DEV) ## Show the events on the topic as they arrive
	@exec $(BIN)/python -m market_data_pipeline_dev.tail

test: $(TEST) ## Run the tests that need nothing else
	$(BIN)/python -m pytest -m "not services and not kubernetes" --numprocesses auto --dist worksteal

test-libraries: $(TEST) ## Run the tests of libraries/ that need nothing else
	$(BIN)/python -m pytest libraries -m "not services" --numprocesses auto --dist worksteal

test-services: $(SERVICES) ## Run the tests against real Kafka and real MongoDB, and those that take long
	REQUIRE_SERVICES=1 $(BIN)/python -m market_data_pipeline_tests.services.mongo_engine \
	  $(BIN)/python -m pytest market_data_pipeline_tests libraries -m services

test-kubernetes: $(SERVICES) $(VENV)/control-plane ## Run the tests against a Kubernetes API server
	REQUIRE_SERVICES=1 $(BIN)/python -m pytest -m kubernetes

screenshots: $(SERVICES) ## Make the README's pictures anew (needs Chromium)
	$(BIN)/python -m market_data_pipeline_tests.services.screenshots

check: $(SERVICES) ## Run linter, formatter and type checker
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(TEST) ## Measure everything, in some minutes, into docs/benchmarks.md
	$(BIN)/python -m benchmarks.bench

audit: ## Look for known vulnerabilities of the pinned versions (needs the network)
	$(PYTHON) -m venv $(VENV)/audit
	$(VENV)/audit/bin/pip install --quiet --disable-pip-version-check pip-audit==2.10.1
	$(VENV)/audit/bin/pip-audit --requirement constraints.txt --no-deps --disable-pip

calendar: $(DEV) ## Make the days on which B3 is closed anew, into b3_calendar.csv
	$(BIN)/python -m market_data_pipeline_dev.calendar

lock: ## Pin the newest versions that fit, for every Python, into constraints.txt
	$(PYTHON) -m venv $(VENV)/lock
	$(VENV)/lock/bin/pip install --quiet --disable-pip-version-check uv==0.13.9
	printf '%s\n' ./libraries/dagster-mongo ./libraries/brapi-sandbox '.[kubernetes,local,production,test]' | \
	  $(VENV)/lock/bin/uv pip compile --quiet --upgrade --universal --python-version 3.11 \
	  --no-header --no-annotate - | grep -v '^\.' > constraints.txt

clean: ## Remove the environment and the state of `make dev`
	rm -rf $(VENV) .dev

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' || \
	  { echo "Python 3.11, 3.12 or 3.13 is needed: make PYTHON=/path/to/python3.12 ..."; exit 1; }
	$(PYTHON) -m venv $(VENV)

# All paths in one command: the libraries are on no public index, and are not looked up there.
$(DEV) $(TEST) $(SERVICES): pyproject.toml libraries/dagster-mongo/pyproject.toml libraries/brapi-sandbox/pyproject.toml constraints.txt | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt \
	  -e ./libraries/dagster-mongo -e ./libraries/brapi-sandbox -e ".[$(EXTRAS)]"
	@touch $@

CONTROL_PLANE := market_data_pipeline_tests/kubernetes/control-plane
$(VENV)/control-plane: $(CONTROL_PLANE)/go.mod $(CONTROL_PLANE)/go.sum $(CONTROL_PLANE)/main.go | $(BIN)/python
	cd $(CONTROL_PLANE) && go build -trimpath -ldflags='-s -w' -o $(abspath $@) .
