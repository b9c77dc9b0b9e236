PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

# Both paths in one command: dagster-mongo is on no public index, and is not looked up there.
INSTALLED := $(VENV)/.installed

.DEFAULT_GOAL := help
.PHONY: help dev tail test test-services check lock clean

help: ## Show this list
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

dev: $(INSTALLED) ## Run everything, with stand-ins for what is not configured
	@exec $(BIN)/python -m market_data_pipeline.local.dev

tail: $(INSTALLED) ## Show the events on the topic as they arrive
	@exec $(BIN)/market-data-tail

test: $(INSTALLED) ## Run the tests that need nothing else
	$(BIN)/python -m pytest -m "not services"

test-services: $(INSTALLED) ## Run the tests against real Kafka and real MongoDB
	REQUIRE_SERVICES=1 $(BIN)/python -m pytest -m services

check: $(INSTALLED) ## Run linter, formatter and type checker
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

lock: ## Pin the newest versions that fit into constraints.txt
	rm -rf $(VENV)
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet ./libraries/dagster-mongo -e ".[kubernetes,local,production,test]"
	$(BIN)/pip freeze --exclude-editable | grep -v ' @ ' > constraints.txt

clean: ## Remove the environment and the state of `make dev`
	rm -rf $(VENV) .dev

$(INSTALLED): pyproject.toml libraries/dagster-mongo/pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' || \
	  { echo "Python 3.11, 3.12 or 3.13 is needed: make PYTHON=/path/to/python3.12 ..."; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt \
	  -e ./libraries/dagster-mongo -e ".[local,production,test]"
	@touch $@
