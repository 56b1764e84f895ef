# Plain `make` lists the targets. The first one that needs ./.venv makes it (contrib/bootstrap.sh).
# Variables: PYTHON (interpreter for .venv), DEMO (options of the demo), NODE (home for `make up`),
# SEEDS and SIM (how many seeds and which options for `make sim`; 10000), SEEDS, MINUTES and FAULTS
# (the same for `make faults`; 500 seeds, and 0 minutes means until all are played).

.DEFAULT_GOAL := help
PYTHON ?= python3
DEMO ?=
NODE ?= .node
SEEDS ?=
SIM ?=
MINUTES ?= 0
FAULTS ?=
BIN := .venv/bin
QUICK := not faults and not mesh

export PYTHON

.PHONY: help
help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-11s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.venv/.ok: pyproject.toml requirements.lock contrib/bootstrap.sh
	@sh contrib/bootstrap.sh

.PHONY: venv
venv: .venv/.ok ## only make ./.venv; the command is .venv/bin/certmesh

.PHONY: demo
demo: .venv/.ok ## a three-node mesh on this machine: real CA, mutual TLS and failover (about 1 minute)
	@$(BIN)/python -m broker.cli.demo $(DEMO)

.PHONY: demo-keep
demo-keep: .venv/.ok ## the same, left running to look around
	@$(BIN)/python -m broker.cli.demo --keep $(DEMO)

.PHONY: demo-clean
demo-clean: .venv/.ok ## stop the demo's nodes and remove ./.demo
	@$(BIN)/python -m broker.cli.demo --clean

.PHONY: up
up: .venv/.ok ## a mesh of your own on this machine, in ./.node (or NODE=DIR), started
	@test -e $(NODE)/certmesh.toml || $(BIN)/certmesh --home $(NODE) init
	@test -e $(NODE)/.gitignore || echo '*' > $(NODE)/.gitignore
	@$(BIN)/certmesh --home $(NODE) up

.PHONY: lint
lint: .venv/.ok ## format, rules, types and architecture contracts
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

.PHONY: check
check: lint ## the quick part of the tests (no whole nodes, no faults)
	$(BIN)/pytest -q -n 2 -m "$(QUICK)"

.PHONY: test
test: check ## everything: also whole nodes under supervisord and broken processes
	$(BIN)/pytest -q -m "not ($(QUICK))"

.PHONY: services
services: ## fetch nginx, HAProxy and Caddy into ./.services, for the tests that drive them (needs apt)
	@sh contrib/services.sh

.PHONY: sim
sim: .venv/.ok ## whole meshes in one process, SEEDS schedules of faults (SIM=--mutants: without each rule)
	@$(BIN)/python -m tests.sim --seeds $(or $(SEEDS),10000) $(SIM)

.PHONY: faults
faults: .venv/.ok ## real nodes broken from seeds: SEEDS=n MINUTES=m (FAULTS="--lanes 2": two meshes at once)
	@$(BIN)/python -m tests.faults --seeds $(or $(SEEDS),500) --minutes $(MINUTES) $(FAULTS)

.PHONY: fuzz
fuzz: .venv/.ok ## coverage-guided fuzzing of every way in, MINUTES in all (installs atheris; Linux x86-64)
	@$(BIN)/python -c 'import atheris' 2>/dev/null || if command -v uv >/dev/null 2>&1; \
	    then uv pip install --quiet --python $(BIN)/python --require-hashes -r requirements-fuzz.lock; \
	    else $(BIN)/python -m pip install --quiet --require-hashes -r requirements-fuzz.lock; fi
	@$(BIN)/python -m tests.fuzz --minutes $(or $(filter-out 0,$(MINUTES)),10)

.PHONY: bench
bench: .venv/.ok ## measure against the raw limits, write bench/out/latest.json
	@$(BIN)/python -m bench

.PHONY: lock
lock: ## pin every package again, for every platform, with hashes (needs uv)
	@sed -n '/^#/p' requirements.lock > .lock.new
	@printf 'hatchling>=1.25\neditables>=0.5\n' | uv pip compile pyproject.toml - --group dev \
	    --generate-hashes --no-emit-index-url --no-emit-find-links --universal \
	    --python-version 3.11 --no-header --no-annotate --quiet >> .lock.new
	@mv .lock.new requirements.lock
