# What people do with llmlab, one command each. `make` alone lists the targets.
# Paths are relative, so that the repository may live in a directory with a space in its name.

PY := .venv/bin/python
# Test processes at once. One more than there are cores: many tests wait for processes that they started.
JOBS ?= $(shell expr $$(getconf _NPROCESSORS_ONLN) + 1)
# More arguments for pytest, for example ARGS="-k budgets -x".
ARGS ?=
# `make test COVERAGE=1` measures coverage and fails below the limit in pyproject.toml.
COVERAGE ?=
COMMA := ,
COVERAGE_ARGS := $(if $(COVERAGE),--cov --cov-report=term:skip-covered --cov-report=html,)

# Containers often tell Python not to keep what it compiled; each start of a service would then take twice as long.
export PYTHONDONTWRITEBYTECODE :=

.DEFAULT_GOAL := help
.PHONY: help setup demo test coverage lint format type imports proto proto-check env-example lock up down logs migrate \
	prices bench chaos chaos-budget simulate test-peers compose-up compose-down compose-logs compose-test k8s-check rolling-test certs check clean

## help: list the targets
help:
	@echo "llmlab: make <target>"
	@sed -n 's/^## \([a-z0-9-]*\): \(.*\)/  \1\t\2/p' Makefile | expand -t 18

## setup: make .venv with everything in requirements.txt (done by the other targets when needed)
setup: .venv/.installed
	@:

.venv/.installed: requirements.txt pyproject.toml tools/setup.sh
	@sh tools/setup.sh

## demo: run a sample study through all five services, on SQLite and the mock provider
demo: setup
	@.venv/bin/llmlab demo

## test: run all tests (JOBS=4, ARGS="-k budgets", COVERAGE=1)
test: setup
	@$(PY) -m pytest -n $(JOBS) --dist loadfile --no-loadscope-reorder $(COVERAGE_ARGS) $(ARGS)

## coverage: run all tests and fail when too little of the code is covered
coverage:
	@$(MAKE) --no-print-directory test COVERAGE=1

## lint: check style and formatting
lint: setup
	@$(PY) -m ruff check .
	@$(PY) -m ruff format --check .

## format: format the code and fix what can be fixed
format: setup
	@$(PY) -m ruff format .
	@$(PY) -m ruff check --fix .

## type: check types strictly
type: setup
	@$(PY) -m mypy

## imports: check who may import whom
imports: setup
	@.venv/bin/lint-imports

## proto: format the protos; generate llmlab/api and docs/api from them
proto: setup
	@$(PY) -m tools.proto generate

## proto-check: lint the protos, look for breaking changes, check that what they generate is fresh
proto-check: setup
	@$(PY) -m tools.proto check

## env-example: write .env.example from the services' settings
env-example: setup
	@$(PY) -m tools.env_example

## lock: resolve requirements.txt, and its part for the image, anew from pyproject.toml
lock: setup
	@$(PY) -m tools.lock

## up: start the five services as processes, with PostgreSQL and Redis (LLMLAB_DATABASE_URL, LLMLAB_REDIS_URL, or local ones)
up: setup
	@$(PY) -m tools.processes up

## down: stop what `make up` started
down: setup
	@$(PY) -m tools.processes down

## logs: show the logs of what `make up` started (SERVICE=gateway for one, FOLLOW=1 to follow)
logs: setup
	@$(PY) -m tools.processes logs $(if $(FOLLOW),--follow,) $(SERVICE)

## compose-up: build the image, start all containers, tell the llmlab command where they are (PROFILES="redis-ui observability")
compose-up: setup
	@$(PY) -m tools.compose up $(foreach profile,$(PROFILES),--profile $(profile))

## compose-down: stop and remove the containers (VOLUMES=1: their data too)
compose-down: setup
	@$(PY) -m tools.compose down $(if $(VOLUMES),--volumes,)

## compose-logs: show the containers' logs (SERVICE=gateway for one, FOLLOW=1 to follow)
compose-logs: setup
	@$(PY) -m tools.compose logs $(if $(FOLLOW),--follow,) $(SERVICE)

## compose-test: run a study in containers, kill two of them meanwhile, check the results (BASE_IMAGE=... where none can be pulled)
compose-test: setup
	@LLMLAB_TEST_COMPOSE='$(if $(BASE_IMAGE),{"LLMLAB_BASE_IMAGE": "$(BASE_IMAGE)"$(COMMA) "COMPOSE_FILE": "docker-compose.yml:deploy/compose/packages.yaml"$(COMMA) "LLMLAB_PIP_CONFIG": "$(PIP_CONFIG)"},{})' \
		$(PY) -m pytest tests/compose -p no:randomly -s $(ARGS)

## k8s-check: build deploy/k8s, validate it against Kubernetes' schemas, scan its posture (tools go into .venv-k8s)
k8s-check: setup
	@sh tools/kubernetes_tools.sh
	@$(PY) -m tools.kubernetes

## rolling-test: restart every service under load, two processes each; then upgrade them from an earlier commit (FROM=HEAD~1)
rolling-test: setup
	@LLMLAB_TEST_ROLLING="$(or $(FROM),HEAD~1)" $(PY) -m pytest tests/rolling -p no:randomly -s $(ARGS)

## certs: make or renew certificates for mutual TLS between the services, in ./certs (DAYS=90)
certs: setup
	@$(PY) -m tools.certs $(if $(DAYS),--days $(DAYS),)

## migrate: bring the schema of every service up to date
migrate: setup
	@$(PY) -m services.runtime.migrate_services

## prices: show what the installed genai-prices would change in the catalogue (ARGS=--apply writes a new version)
prices: setup
	@$(PY) -m services.cost.pricing.catalogue_update $(ARGS)

## bench: run a benchmark of bench/ (NAME=pipeline)
bench: setup
	@$(PY) -m bench.$(or $(NAME),$(error say which benchmark: make bench NAME=pipeline))

## chaos-budget: kill the cost service and its database under load; no budget may be overspent (SEEDS=20)
chaos-budget: setup
	@$(PY) -m bench.chaos_budget --seeds $(or $(SEEDS),20)

## chaos: kill every service and the database under a cluster's runs, then check all books (SEED=1, KILLS=50; 15 minutes at most)
chaos: setup
	@$(PY) -m bench.chaos --seed $(or $(SEED),1) --kills $(or $(KILLS),50) $(ARGS)

## simulate: runs in virtual time under seeded faults (SEEDS=10000, FIRST=0); `make simulate FIRST=17 SEEDS=1` replays seed 17
simulate: setup
	@LLMLAB_TEST_SIMULATION_SEEDS=$(or $(SEEDS),10000) LLMLAB_TEST_SIMULATION_FIRST=$(or $(FIRST),0) \
		$(PY) -m pytest -q -n $(JOBS) -p no:randomly --show-capture=no tests/simulation/test_runs.py $(ARGS)

## test-peers: run the gateway against a LiteLLM proxy, which is put into .venv-peers first (2 minutes; not part of check)
test-peers: setup
	@sh tools/peers.sh
	@LLMLAB_TEST_LITELLM="$(CURDIR)/.venv-peers/bin/litellm" $(PY) -m pytest tests/peers $(ARGS)

## check: run every gate: lint, type, imports, proto-check, tests with coverage
check: lint type imports proto-check coverage

## clean: remove .venv, caches and build leftovers; stops nothing and keeps data
clean:
	@rm -rf .venv .venv-peers .venv-k8s .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache .coverage .coverage.* htmlcov build dist
	@rm -rf *.egg-info
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
