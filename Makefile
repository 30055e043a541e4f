# On a machine with Python (>= 3.11.4) and make: `make demo` or `make test`; each sets up .venv on its first use.
# The interpreter that .venv is made with: `make demo PYTHON=python3.12`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/$(if $(filter Windows_NT,$(OS)),Scripts,bin)
RUN := $(BIN)/python
INSTALLED := $(VENV)/.installed

# Processes that share the tests out, file by file: one more than the cores of a small machine, since some tests wait. Each needs up to 5 GB of
# memory; JOBS=0 runs them in one, for a debugger.
JOBS ?= 3
PYTEST = $(RUN) -m pytest -n $(JOBS) --dist loadfile --no-loadscope-reorder

# A peer that is measured as a black box has an environment of its own: its licence is not ours.
PEER := .venv-ultralytics

.PHONY: help env demo test tests test-processes test-slow fuzz bench lint style types format docs site clean

help:
	@echo "make demo       train, evaluate and predict on the synthetic set; pictures in runs/demo (minutes on a CPU)"
	@echo "make test       style, types and tests, in three processes: JOBS=2 where memory is short"
	@echo "make test-processes  trainings in processes of their own, killed, stopped and on many devices; CI runs them, too"
	@echo "make test-slow  the long tests: trainings on real data"
	@echo "make fuzz       changed files on every reader, for 10 minutes: make fuzz SECONDS=600 SEED=1"
	@echo "make bench      compare with peers, side by side, and write docs/benchmarks.md (half an hour; nothing else should run)"
	@echo "make lint       style and types only"
	@echo "make format     lay the code out, fix what ruff can fix"
	@echo "make docs       write docs/configuration.md anew from the schema"
	@echo "make site       build the documentation site in build/site; a broken link is an error"
	@echo "make env        only set up $(VENV)"
	@echo "make clean      remove $(VENV), caches and build leftovers; runs/ and data/ stay"

env: $(INSTALLED)

# Done again when pyproject.toml changes. torch and torchvision come from one index in one call, so that they match.
$(INSTALLED): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11, 4))' 2>/dev/null || \
		{ echo "error: $(PYTHON) is missing or older than Python 3.11.4; name a newer one: make PYTHON=python3.12"; exit 2; }
	@test -x $(BIN)/pip || $(PYTHON) -m venv --clear $(VENV) || \
		{ rm -rf $(VENV); echo "error: $(PYTHON) cannot make an environment (Debian: apt install python3-venv)"; exit 2; }
	$(RUN) -m pip install --disable-pip-version-check -e ".[dev]"
	@touch $@

demo: $(INSTALLED)
	$(RUN) tools/demo.py

# Types are checked beside the tests. A thread each: more would wait for one another. And with bytecode written, whatever the shell says: many tests start a Python.
test: export OMP_NUM_THREADS := 1
test: export PYTHONDONTWRITEBYTECODE :=
test: style
	$(MAKE) -j2 types tests

tests: $(INSTALLED)
	$(PYTEST) -m "not slow and not processes"

test-processes: export OMP_NUM_THREADS := 1
test-processes: export PYTHONDONTWRITEBYTECODE :=
test-processes: $(INSTALLED)
	$(PYTEST) -m "processes and not slow"

test-slow: $(INSTALLED)
	$(RUN) -m pytest -m slow

# Another seed gives other inputs.
fuzz: SECONDS = 600
fuzz: SEED = 1
fuzz: $(INSTALLED)
	$(RUN) -m tests.fuzz --seconds $(SECONDS) --seed $(SEED)

bench: $(INSTALLED) $(PEER)/.installed
	$(RUN) -m pip install --disable-pip-version-check -q -e ".[bench]"
	$(RUN) -m benchmarks.run

$(PEER)/.installed:
	$(PYTHON) -m venv --clear $(PEER)
	$(PEER)/bin/python -m pip install --disable-pip-version-check -q ultralytics onnx onnxslim onnxruntime openvino
	@touch $@

lint: style types

style: $(INSTALLED)
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .

types: $(INSTALLED)
	$(RUN) -m mypy

format: $(INSTALLED)
	$(RUN) -m ruff check --fix .
	$(RUN) -m ruff format .

docs: $(INSTALLED)
	$(RUN) -m detseg.config.describe docs/configuration.md

site: $(INSTALLED)
	NO_MKDOCS_2_WARNING=1 $(RUN) -m mkdocs build --strict

clean:
	rm -rf $(VENV) $(PEER) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -not -path "./data/*" -prune -exec rm -rf {} +
