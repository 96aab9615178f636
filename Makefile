# Every command first sets up .venv if it is missing, its pins have changed, or it was moved or copied here.
# With another interpreter: make PYTHON=python3.12 all

PYTHON ?= python3
BIN := .venv/bin
SNAKEMAKE := $(BIN)/snakemake --cores 4
# Snakemake stops without a home that it can write and a user with a name; a container may give neither.
ifneq ($(shell test -w "$$HOME" && echo yes),yes)
export HOME := $(CURDIR)/.snakemake/home
endif
export LOGNAME ?= $(shell id -un 2>/dev/null || id -u)
VERB = $(BIN)/python -m cpmlho $(1) --config config.yaml --config workflow/$(2).yaml

.PHONY: help all quick paper published multiverse small-data ui ui-published test test-fast bench docs lint gpu-check test-cluster

help:           ## this help
	@sed -n 's/^\([a-z-]*\):[^#]*## /make \1\t/p' Makefile | expand -t 20

all: .venv/.ready           ## the replication: data, runs, tables, figures, report
	$(SNAKEMAKE) all

quick: .venv/.ready         ## the same pipeline cut down to about 90 seconds on two cores, into results/quick
	$(SNAKEMAKE) all --config overlay=workflow/quick.yaml

paper: .venv/.ready         ## tables, figures and pages from the published runs, without training, in a minute
	$(call OUTPUTS,multiverse)
	$(call OUTPUTS,small_data)
	$(call OUTPUTS,published)
	$(BIN)/python -m cpmlho.study.report.readme

published: .venv/.ready     ## the whole published protocol, continued from the published runs: hours, resumable
	$(call VERB,unpack,published)
	$(SNAKEMAKE) all --config overlay=workflow/published.yaml

multiverse: .venv/.ready    ## the specification curve, continued from its published runs: hours, resumable
	$(call VERB,unpack,multiverse)
	$(SNAKEMAKE) all --config overlay=workflow/multiverse.yaml

small-data: .venv/.ready    ## the protocol where tuning matters, continued from its archived runs: hours, resumable
	$(call VERB,unpack,small_data)
	$(SNAKEMAKE) all --config overlay=workflow/small_data.yaml

ui: .venv/.ready            ## MLflow's page on your runs; PORT=N: on this port
	$(BIN)/python -m cpmlho ui $(if $(PORT),--port $(PORT))

ui-published: .venv/.ready  ## MLflow's page on the published runs, after logging them for some minutes; PORT=N
	$(call VERB,unpack,published)
	$(call VERB,track,published)
	$(call VERB,ui,published) $(if $(PORT),--port $(PORT))

test: .venv/.ready          ## the whole test suite
	$(BIN)/python -m pytest -n auto --dist worksteal

test-fast: .venv/.ready     ## the tests that start no workflow and train nothing long
	$(BIN)/python -m pytest -n auto --dist worksteal -m 'not slow'

# The profiler would print between the tables.
bench: .venv/.ready         ## times of plain and of tuned training steps; PUBLISHED=FOLDER: of the published code too
	KINETO_LOG_LEVEL=99 $(BIN)/python -m benchmarks $(if $(PUBLISHED),--published $(PUBLISHED))

docs: .venv/.ready          ## the documentation site, into site/
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

lint: .venv/.ready          ## formatting, style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/snakefmt --check Snakefile workflow
	$(BIN)/mypy

gpu-check: .venv/.ready     ## a GPU compared with the CPU and with itself; without a GPU, the CPU with itself
	$(BIN)/python -m benchmarks.gpu

test-cluster: .venv/.ready  ## small runs with injected faults on its own Slurm and PostgreSQL; needs root
	$(BIN)/python -m tests.cluster

define OUTPUTS
	$(call VERB,unpack,$(1))
	$(call VERB,tables,$(1))
	$(call VERB,figures,$(1))
	$(call VERB,report,$(1))
endef

# A moved or copied .venv still runs the code of its old folder, and one without its interpreter runs nothing.
MADE_HERE := $(shell sed -n 's/^command = .* -m venv \(--clear \)*//p' .venv/pyvenv.cfg 2>/dev/null)
ifneq ($(MADE_HERE),$(and $(shell $(BIN)/python -c 'print(1)' 2>/dev/null),$(CURDIR)/.venv))
.PHONY: .venv/.ready
OUTDATED := yes
endif

# The build backend is pinned in the lock too, hence no isolated build.
.venv/.ready: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || \
		{ echo 'Error: $(PYTHON) is not Python 3.11 or newer; name one that is: make PYTHON=/path/to/python3.11' >&2; exit 1; }
	@echo "Setting up .venv: about two minutes and 7 GB"
	$(PYTHON) -m venv $(if $(OUTDATED),--clear) .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	touch $@
