PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

# uv installs what `requirements/` pins, and pip does where uv cannot: pip alone reads pip's own
# configuration, such as the address of a mirror. `make INSTALLER=pip ...` does not try uv.
INSTALLER ?= uv
export UV_PYTHON_DOWNLOADS := never
# uv does not compile modules: the first start does it for all later ones, if it may write files.
unexport PYTHONDONTWRITEBYTECODE
UV := $(BIN)/uv pip install --python $(BIN)/python
PIP := $(BIN)/python -m pip install --disable-pip-version-check

# What a target needs beyond the pipeline itself; each is installed once.
BUILD := $(VENV)/.with-build
DEV := $(VENV)/.with-dev
TEST := $(VENV)/.with-test
RELEASE := $(VENV)/release/.installed

.DEFAULT_GOAL := help
.PHONY: help dev tail test test-libraries test-services test-kubernetes screenshots check bench dist audit calendar lock clean

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

test-services: $(TEST) ## Run the tests against real Kafka and real MongoDB, and those that take long
	REQUIRE_SERVICES=1 $(BIN)/python -m market_data_pipeline_tests.services.mongo_engine \
	  $(BIN)/python -m pytest market_data_pipeline_tests libraries -m services \
	  --numprocesses 2 --dist loadfile --no-loadscope-reorder

test-kubernetes: $(TEST) $(VENV)/control-plane ## Run the tests against a Kubernetes API server
	REQUIRE_SERVICES=1 $(BIN)/python -m pytest -m kubernetes

screenshots: $(TEST) ## Make the README's pictures anew (needs Chromium)
	$(BIN)/python -m market_data_pipeline_tests.services.screenshots

check: $(TEST) ## Run linter, formatter and type checker
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(TEST) ## Measure everything, in an hour, into docs/benchmarks.md
	$(BIN)/python -m benchmarks.bench

dist: $(RELEASE) ## Build what a release consists of, from the last commit, into dist/
	rm -rf dist $(VENV)/source && mkdir $(VENV)/source && git archive HEAD | tar -x -C $(VENV)/source
	umask 022; for folder in . libraries/dagster-mongo libraries/brapi-sandbox; do \
	  SOURCE_DATE_EPOCH=$$(git log -1 --format=%ct) $(VENV)/release/bin/python -m build --no-isolation \
	    --sdist --wheel --outdir dist $(VENV)/source/$$folder || exit 1; \
	done
	$(VENV)/release/bin/twine check --strict dist/*
	$(VENV)/release/bin/python -W ignore -m cyclonedx_py requirements --pyproject pyproject.toml \
	  --output-reproducible --output-file dist/image.cdx.json requirements/image.txt

audit: $(RELEASE) ## Look for known vulnerabilities of the pinned versions (needs the network)
	$(VENV)/release/bin/pip-audit --disable-pip --requirement requirements/test.txt
	$(VENV)/release/bin/pip-audit --disable-pip --requirement requirements/release.txt

calendar: $(DEV) ## Make the days on which B3 is closed anew, into b3_calendar.csv
	$(BIN)/python -m market_data_pipeline_dev.calendar

COMPILE := $(BIN)/uv pip compile --quiet --upgrade --universal --python-version 3.11 --generate-hashes \
  --no-header --no-annotate --no-emit-package dagster-mongo --no-emit-package brapi-sandbox

lock: $(BUILD) ## Pin the newest versions that fit, for every Python, into requirements/
	$(COMPILE) --group build --output-file requirements/build.txt
	$(COMPILE) --group release --constraint requirements/build.txt --output-file requirements/release.txt
	$(COMPILE) pyproject.toml --all-extras --constraint requirements/build.txt --output-file requirements/test.txt
	$(COMPILE) pyproject.toml --extra local --constraint requirements/test.txt --output-file requirements/dev.txt
	$(COMPILE) pyproject.toml --extra kubernetes --extra production --constraint requirements/test.txt \
	  --output-file requirements/image.txt

clean: ## Remove the environment and the state of `make dev`
	rm -rf $(VENV) .dev

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 15))' || \
	  { echo "Python 3.11, 3.12, 3.13 or 3.14 is needed: make PYTHON=/path/to/python3.12 ..."; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.platform == "darwin" and sys.version_info >= (3, 14))' || \
	  echo "watchdog has no wheel for Python 3.14 on macOS: it is compiled, or use Python 3.13."
	$(PYTHON) -m venv $(VENV)

$(BUILD): requirements/build.txt | $(BIN)/python
	$(PIP) --quiet --require-hashes --requirement $<
	@touch $@

$(RELEASE): requirements/release.txt | $(BIN)/python
	$(BIN)/python -m venv $(VENV)/release
	$(VENV)/release/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes --requirement $<
	@touch $@

# The distributions of this repository are on no index; what they need is pinned.
install = $(1) --quiet --no-deps --no-build-isolation --require-hashes --requirement requirements/$(2).txt && \
  $(1) --quiet --no-deps --no-build-isolation \
    --editable ./libraries/dagster-mongo --editable ./libraries/brapi-sandbox --editable .

$(VENV)/.with-%: requirements/%.txt pyproject.toml libraries/dagster-mongo/pyproject.toml libraries/brapi-sandbox/pyproject.toml $(BUILD)
ifeq ($(INSTALLER),uv)
	@{ $(call install,$(UV),$*); } || { \
	  echo "uv cannot install the packages, see above. pip, which has its own configuration, installs the same:"; \
	  $(call install,$(PIP),$*); }
else
	@$(call install,$(PIP),$*)
endif
	@touch $@

CONTROL_PLANE := market_data_pipeline_tests/kubernetes/control-plane
$(VENV)/control-plane: $(CONTROL_PLANE)/go.mod $(CONTROL_PLANE)/go.sum $(CONTROL_PLANE)/main.go | $(BIN)/python
	cd $(CONTROL_PLANE) && go build -trimpath -ldflags='-s -w' -o $(abspath $@) .
