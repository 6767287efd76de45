# What a laptop and the CI run alike. `make help` lists it.

BIN := .venv/bin
PYTHON ?=
ARGS ?=
# One more than the cores of the smallest machine, because many tests wait.
JOBS ?= 3
SEEDS ?= 1000

# Keys, and addresses of services that hold somebody's data: never for tests.
PRIVATE := $(filter OPENAI_% ANTHROPIC_% AGENTCHORD_% DATABASE_URL REDIS_URL,$(.VARIABLES))
COMPOSE := $(wildcard docker/compose*.yaml)
DOCKERFILES := $(wildcard docker/Dockerfile*)
SCRIPTS := scripts/setup scripts/peers .ci/run

# Another project's environment must not leak into this one, and compiled modules make each of
# our many processes start faster.
unexport PYTHONHOME PYTHONPATH PYTHONSTARTUP PYTHONDONTWRITEBYTECODE VIRTUAL_ENV CONDA_PREFIX

.DEFAULT_GOAL := help
.PHONY: help setup demo test faults fuzz check check-types check-style check-imports check-files format coverage bench bench-peers scale limits watching footprint layout parameter-types lock clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-15s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: ## .venv with the locked dependencies; instant the second time (PYTHON=... to choose)
	@PYTHON='$(PYTHON)' scripts/setup

demo: setup ## the main job on the simulator, free of charge (LIVE=1: real providers, asks first)
	@$(BIN)/agentchord demo $(if $(LIVE),--live) $(ARGS)

test: setup ## all tests, with real services (ARGS="-k budget" to choose)
	@env $(PRIVATE:%=-u %) $(BIN)/python -m pytest -n $(JOBS) --dist worksteal -m "not benchmark" --hypothesis-profile ci $(ARGS)

check: setup ## linters, formatter, type checker, import contracts
	@$(MAKE) --no-print-directory -j 2 check-types check-style check-imports check-files

check-types: setup ## the type checker alone
	$(BIN)/mypy

check-style: setup ## the linter and the formatter alone
	$(BIN)/ruff check
	$(BIN)/ruff format --check

check-imports: setup ## the import contracts alone
	$(BIN)/lint-imports

check-files: setup ## the linters of YAML, shell and Docker files alone
	$(BIN)/yamllint --strict .
	$(if $(COMPOSE),$(BIN)/check-jsonschema --builtin-schema vendor.compose-spec $(COMPOSE))
	$(if $(DOCKERFILES),$(BIN)/hadolint $(DOCKERFILES))
	@if [ -x $(BIN)/shellcheck ]; then set -x; $(BIN)/shellcheck $(SCRIPTS); fi

format: setup ## fix what the linters can fix
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

coverage: setup ## the tests again, with branch coverage (subprocesses included)
	@env $(PRIVATE:%=-u %) $(BIN)/coverage run -m pytest -m "not benchmark" $(ARGS)
	@$(BIN)/coverage combine --quiet
	@$(BIN)/coverage report

faults: setup ## every fault in full size, 20 random mixes, 1000 simulations (SEEDS=...): the table of docs/reliability.md (half an hour)
	@env $(PRIVATE:%=-u %) $(BIN)/python -m tests.faults --markdown docs/reliability.md $(ARGS)
	@[ $(SEEDS) = 0 ] || env $(PRIVATE:%=-u %) $(BIN)/python -m tests.simulation --seeds $(SEEDS) --jobs $(JOBS)

fuzz: setup ## 10,000 hostile inputs: none may hold up the loop or take much memory (an hour)
	@env $(PRIVATE:%=-u %) $(BIN)/python -m pytest tests/fuzz -n $(JOBS) --hypothesis-profile fuzz --timeout 0 $(ARGS)

limits: setup ## how well limits are kept and used, in full (40 minutes)
	@env $(PRIVATE:%=-u %) $(BIN)/python -m tests.benchmarks.limits $(ARGS)

bench: setup ## AgentChord beside plain asyncio and raw Celery: docs/performance.md
	@env $(PRIVATE:%=-u %) $(BIN)/python -m tests.benchmarks $(ARGS)

bench-peers: setup ## the same beside LangGraph, DBOS and Prefect too (installs them into .bench)
	@scripts/peers
	@env $(PRIVATE:%=-u %) $(BIN)/python -m tests.benchmarks --peers $(ARGS)

scale: setup ## what an agent costs in runs of 500 to 10,000, and among 200,000 finished ones
	@env $(PRIVATE:%=-u %) $(BIN)/python -m tests.benchmarks.scale $(ARGS)

watching: setup ## what metrics and the stream of events cost, in CPU per agent
	@env $(PRIVATE:%=-u %) $(BIN)/python -m tests.benchmarks.watching $(ARGS)

parameter-types: setup ## the types of the providers' parameters, from the installed SDKs
	@$(BIN)/python -m tests.support.parameter_types

layout: setup ## the tables of docs/architecture.md#layout, from the import contract
	@$(BIN)/python -m tests.support.layout

footprint: setup ## how soon everything is there, and what it weighs
	@env $(PRIVATE:%=-u %) $(BIN)/python -m tests.benchmarks.footprint $(ARGS)

lock: ## resolve the newest allowed versions and write the locks (needs uv)
	@uv --version >/dev/null || { echo "make lock needs uv: pip install uv" >&2; exit 1; }
	uv lock --upgrade --default-index https://pypi.org/simple
	for kind in "requirements.lock --no-dev" requirements-dev.lock; do \
	    set -- $$kind; file=$$1; shift; \
	    uv export --frozen --quiet --no-emit-project --no-annotate --no-header $$@ --output-file $$file; \
	    printf '%s\n' "# uv.lock in the form that pip reads. Written by make lock." | cat - $$file > $$file.new; \
	    mv $$file.new $$file; \
	done

clean: ## remove .venv, caches and builds (never the data in .agentchord)
	rm -rf .venv .venv.lock .bench build dist htmlcov .coverage .coverage.*
	rm -rf .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find app workers migrations tests -name __pycache__ -type d -prune -exec rm -rf {} +
