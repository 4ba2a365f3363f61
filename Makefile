# make run: from nothing to a trained model and its report. make test: what CI runs.
# Needs Python 3.11 or later (PYTHON=python3.12 picks another) and make; all else goes into .venv.

PYTHON ?= python3
VENV ?= .venv
PRESET ?= quick
# Extra options for pip, such as an index that has torch's CPU build: PIP_OPTIONS="--extra-index-url URL"
PIP_OPTIONS ?=
TORCH ?= 2.13.0

BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet $(PIP_OPTIONS)

.PHONY: run smoke docs figures bench test lint tests test-slow test-environments test-container \
  test-escapes test-soak test-anywhere fuzz viewer-times recovery-times install clean

run: $(VENV)/.run
	$(BIN)/codedance run --preset $(PRESET)

smoke: $(VENV)/.run
	$(BIN)/codedance run --preset smoke

test: lint tests

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright --pythonpath $(BIN)/python
	$(BIN)/lint-imports

tests: $(VENV)/.dev
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile

test-slow: $(VENV)/.dev
	$(BIN)/python -m pytest -m slow --timeout 3000

# The environment beside five sets of pins that conflict, from a package index: the same 100 tasks,
# digest by digest. PYTHONS="python3.12 python3.13" takes other interpreters in turn.
test-environments: $(VENV)/.dev
	$(BIN)/python tests/five_environments.py $(addprefix --python ,$(PYTHONS))

# The golden digests (tests/golden) from a wheel in other places: a folder with a space and an umlaut, another
# locale, time zone, hash seed and user.
test-anywhere: $(VENV)/.dev
	$(BIN)/python tests/anywhere.py

# Bad input by the ten thousand, new at every run: command lines, flows.yaml, rows, replies, images.
fuzz: $(VENV)/.dev
	CODEDANCE_FUZZ=10 $(BIN)/python -m pytest -m slow tests/fuzz --timeout 3000

# Every attempt to get out of the sandbox, on every backend and tier here, with its control; writes
# docs/escapes.md.
test-escapes: $(VENV)/.dev
	cd tests && $(abspath $(BIN))/python -m sandbox.escapes

# 100,000 turns over 2,000 sessions while sessions and the zygote are killed.
test-soak: $(VENV)/.dev
	cd tests && $(abspath $(BIN))/python -m sandbox.soak

# What things cost, beside what others use; each writes all it measured into build/bench. Hours, and a quiet machine.
bench: $(VENV)/.dev
	mkdir -p build/bench
	for name in sandbox rollout update envs store; do \
	  $(BIN)/python -m benchmarks.$$name --output build/bench/$$name.json || exit 1; done
	$(BIN)/python -m benchmarks.families

# How long a run's viewer takes in Chromium: make viewer-times PAGE=.codedance/reports/RUN/viewer.html
viewer-times: $(VENV)/.dev
	cd tests && $(abspath $(BIN))/python -m pipelines.viewer_times $(abspath $(PAGE))

# Seconds from kill -9 to the next new step, for the command and for a worker, three times each.
recovery-times: $(VENV)/.dev
	cd tests && $(abspath $(BIN))/python -m pipelines.recovery_times

# The sandbox's tests once more where most users are: in a plain container, not as root.
test-container: $(VENV)/.dev
	$(BIN)/python tests/in_container.py

# The site, into build/site; a warning is an error. The notice that it silences is no warning of ours.
docs: $(VENV)/.dev
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

# The figures of the reward's explanation, again from the code.
figures: $(VENV)/.dev
	$(BIN)/python docs/figures/draw.py

install: $(VENV)/.run

# torch first: where no GPU is, its CPU build (a tenth of the size) if an index that pip knows has it.
$(VENV)/.torch: constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "CodeDance needs Python 3.11 or later, got %s; name one: make PYTHON=python3.12" % sys.version.split()[0])'
	$(PYTHON) -m venv $(VENV)
	if command -v nvidia-smi >/dev/null 2>&1; then $(PIP) torch==$(TORCH); else \
	  $(PIP) torch==$(TORCH)+cpu || $(PIP) torch==$(TORCH); fi
	touch $@

$(VENV)/.run: $(VENV)/.torch pyproject.toml
	$(PIP) --constraint constraints.txt --editable '.[all]'
	touch $@

$(VENV)/.dev: $(VENV)/.torch pyproject.toml
	$(PIP) --constraint constraints.txt --editable '.[dev]'
	touch $@ $(VENV)/.run

clean:
	rm -rf $(VENV) build dist *.egg-info
