# make all     the replication: data, runs, tables, figures
# make test    the test suite
# make quick   the same pipeline, cut down to about 3 minutes on two cores, into results/quick
# make bench   times of the steps beside the machine's own peak, and of whole runs, into results/benchmark.json; with
#              PUBLISHED=FOLDER, a checkout of the published Delta-STN code, also of its cycle, side by side with ours
# make lint    formatting, style and types
#
# Each sets up .venv first if it is missing or its pins have changed. Another interpreter: make PYTHON=python3.12 all

PYTHON ?= python3
BIN := .venv/bin

.PHONY: all test quick bench lint

all: .venv/.ready
	$(BIN)/snakemake --cores 4 all

test: .venv/.ready
	$(BIN)/python -m pytest -n auto --maxprocesses 4 --dist loadfile

quick: .venv/.ready
	$(BIN)/snakemake --cores 4 all --config overlay=workflow/quick.yaml

# The profiler would talk between the tables.
bench: .venv/.ready
	KINETO_LOG_LEVEL=99 $(BIN)/python -m benchmarks $(if $(PUBLISHED),--published $(PUBLISHED))

lint: .venv/.ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/snakefmt --check Snakefile workflow
	$(BIN)/mypy

# The build backend is pinned in the lock too, hence no isolated build.
.venv/.ready: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || \
		{ echo 'Error: $(PYTHON) is not Python 3.11 or newer; name one that is: make PYTHON=/path/to/python3.11' >&2; exit 1; }
	@echo "Setting up .venv: about two minutes and 6.3 GB"
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	touch $@
