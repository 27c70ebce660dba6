# Two commands do everything on a machine with Python 3.11 or newer, git and make: `make demo` and `make test`.

PYTHON ?= python3
VENV ?= .venv
DEMO_OUT ?= out/demo
STORE := out/csist-100k.h5

BIN := $(VENV)/bin
# --no-compile: Python compiles what it imports, which is a small part of what is installed.
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet --no-compile -c constraints-cpu.txt
DEPENDENCIES := pyproject.toml constraints-cpu.txt

.DEFAULT_GOAL := help
.NOTPARALLEL:  # benchmarks side by side would time each other
.PHONY: help demo pictures docs results table test lint format bench yolo clean clean-all

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo "  PYTHON=/path/to/python3.12 chooses the interpreter, VENV=folder the environment"

demo: $(VENV)/core.stamp  ## unmix a real infrared frame and 100 benchmark windows, into out/demo
	$(BIN)/python examples/demo.py $(DEMO_OUT)

# Two processes share the tests and both cores; what they load is compiled before, once.
TEST_PROCESSES := 2

test: lint  ## every check: ruff, mypy, import-linter, pytest
	@echo "Compiling the solver (once; a minute)"
	$(BIN)/python tests/warm_up.py
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(TEST_PROCESSES) --dist loadscope --durations=15

lint: $(VENV)/dev.stamp  ## ruff check, ruff format --check, mypy, import-linter
	$(BIN)/python -m ruff check
	$(BIN)/python -m ruff format --check
	$(BIN)/python -m mypy
	$(BIN)/lint-imports --no-logo

format: $(VENV)/dev.stamp  ## let ruff rewrite the files
	$(BIN)/python -m ruff check --fix
	$(BIN)/python -m ruff format

# One target a benchmark, because each wants other data; a new one needs no line here unless it does, too.
BENCHMARKS := $(patsubst benchmarks/bench_%.py,bench-%,$(filter-out %/bench_yolo.py %/bench_real.py,$(wildcard benchmarks/bench_*.py)))
BENCH_OPTIONS_methods = --data $(STORE)

bench: $(BENCHMARKS) bench-real  ## run the benchmarks of benchmarks/ (hours); bench-NAME runs one, REAL=folder adds bench-real

bench-methods: $(STORE)

.PHONY: $(BENCHMARKS)
$(BENCHMARKS): bench-%: $(VENV)/dev.stamp
	$(BIN)/python benchmarks/bench_$*.py $(BENCH_OPTIONS_$*)

.PHONY: bench-real
bench-real: $(VENV)/dev.stamp  ## real frames and star fields: REAL=folder of the data
	$(if $(REAL),$(BIN)/python benchmarks/bench_real.py --data $(REAL),@echo "bench-real: left out, give REAL=folder of the data")

# YOLO is under another licence (AGPL-3.0) and needs a torch that has its torchvision: it gets its own environment.
YOLO_VENV := .venv-yolo
YOLO_PACKAGES := torch==2.14.1 torchvision==0.29.1 ultralytics
YOLO_MINUTES := 30

yolo: $(YOLO_VENV)/yolo.stamp $(STORE)  ## maps read out by YOLO11n; own environment of 5 GB; YOLO_MINUTES=30 a method
	$(YOLO_VENV)/bin/python benchmarks/bench_yolo.py --data $(STORE) --minutes $(YOLO_MINUTES) $(YOLO_OPTIONS)

$(YOLO_VENV)/yolo.stamp: pyproject.toml
	@echo "Installing csist and YOLO into $(YOLO_VENV) (once; several minutes)"
	test -x $(YOLO_VENV)/bin/python || $(PYTHON) -m venv $(YOLO_VENV)
	$(YOLO_VENV)/bin/python -m pip --disable-pip-version-check install --quiet --no-compile $(YOLO_PACKAGES) -e .
	@touch $@

METHODS :=

results: $(VENV)/core.stamp $(STORE)  ## measure every method, or METHODS, on the test split, refill the tables (an hour)
	$(BIN)/csist benchmark --data $(STORE) $(addprefix --method ,$(METHODS)) --output docs/results
	rm -f docs/results/csist-100k-*.png
	$(BIN)/python scripts/figures.py cost
	$(BIN)/python scripts/results_table.py

$(STORE): | $(VENV)/core.stamp
	mkdir -p $(@D)
	$(BIN)/csist generate $@

table: $(VENV)/core.stamp  ## refill the README's table from docs/results
	$(BIN)/python scripts/results_table.py

pictures: $(VENV)/dev.stamp  ## redraw the pictures of the README and of the documentation
	$(BIN)/python examples/demo.py out/pictures --picture docs/images/demo.png
	$(BIN)/python scripts/figures.py
	set -e; for example in examples/[0-9]*.py; do $(BIN)/python $$example docs/images/gallery; done

docs: $(VENV)/dev.stamp  ## build the documentation into site/ (open site/index.html)
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

# The stamps make a second run skip the installation until the dependencies change.
$(VENV)/core.stamp: $(DEPENDENCIES) | $(BIN)/python
	@echo "Installing csist into $(VENV) (once; a minute or two)"
	$(PIP) -e .
	@touch $@

$(VENV)/dev.stamp: $(DEPENDENCIES) | $(BIN)/python
	@echo "Installing csist and the development tools into $(VENV) (once; a few minutes)"
	$(PIP) -e '.[dev]'
	@touch $(VENV)/core.stamp $@

$(BIN)/python:
	@command -v "$(PYTHON)" >/dev/null 2>&1 || { \
	    echo "No $(PYTHON) found. Install Python 3.11 or newer, or run: make ... PYTHON=/path/to/python3.11" >&2; exit 1; }
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	    echo "$(PYTHON) is $$("$(PYTHON)" --version 2>&1), but Python 3.11 or newer is needed:" \
	         "run make ... PYTHON=/path/to/python3.11" >&2; exit 1; }
	@"$(PYTHON)" -m venv "$(VENV)" || { rm -rf "$(VENV)"; \
	    echo "$(PYTHON) -m venv failed (Debian and Ubuntu: install python3-venv)." >&2; exit 1; }

clean:  ## remove build products and caches, compiled Numba code among them
	rm -rf build dist out site .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache
	find src tests benchmarks examples scripts -type d -name __pycache__ -prune -exec rm -rf {} +

clean-all: clean  ## the same, and the environments
	rm -rf $(VENV) $(YOLO_VENV)
