# make run: trains a model and writes its report. make test: the linters and tests that CI runs.
# Requires Python 3.11 or later (PYTHON=python3.12 selects another) and make; everything else is installed into .venv.

PYTHON ?= python3
VENV ?= .venv
PRESET ?= quick
# Extra options for pip, such as an index with torch's CPU build: PIP_OPTIONS="--extra-index-url URL"
PIP_OPTIONS ?=
TORCH ?= 2.13.0

BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet $(PIP_OPTIONS)

.PHONY: run smoke docs figures bench test lint tests test-slow test-long test-vllm test-trackio test-trainers test-environments test-container \
  pains test-escapes test-kernels test-soak test-anywhere fuzz viewer-times recovery-times test-accidents install clean

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
	$(BIN)/python -m pytest -m 'slow and not long' --timeout 3000 --numprocesses 2 --dist loadfile

# The tests of tests/long_tests.txt: whole trainings, kills and commands of pages. Half an hour.
test-long: $(VENV)/.dev
	$(BIN)/python -m pytest -m long --timeout 3000 --numprocesses 2 --dist loadfile

# A real vLLM on the CPU, in an environment of its own, which is made once (3 GB) in the user's cache folder;
# CODEDANCE_VLLM_PYTHON names another. VLLM_TESTS="-k three_turns" selects tests.
VLLM_TESTS ?=
VLLM_LOG ?= build/test-vllm.log
test-vllm: $(VENV)/.dev
	mkdir -p $(dir $(VLLM_LOG))
	bash -o pipefail -c '$(BIN)/python -m pytest -m vllm tests/real_vllm --timeout 1800 -v -rP --no-header $(VLLM_TESTS) 2>&1 \
	  | sed -e "s|$(CURDIR)/||g" -e "s|/tmp/[^ ]*/||g" | tee $(VLLM_LOG)'

# The tests of tracking tools with trackio, which needs another Pillow than the tested one: an environment over ours.
test-trackio: $(VENV)/.dev
	$(PYTHON) -m venv build/trackio
	$(BIN)/python -c 'import site; print("import site; site.addsitedir(%r)" % site.getsitepackages()[0])' > "$$(build/trackio/bin/python -c 'import site; print(site.getsitepackages()[0])')/ours.pth"
	build/trackio/bin/python -m pip install --quiet $(PIP_OPTIONS) 'trackio>=0.43,<1'
	build/trackio/bin/python -m pytest tests/pipelines/tracking/test_sinks.py

# Our adapters inside the real packages of other trainers, in environments that are made once (10 GB in all) in the
# user's cache folder. TRAINERS="verifiers trl" selects some, TRAINER_TESTS="not seed" some of their checks.
TRAINERS ?=
TRAINER_TESTS ?=
TRAINERS_LOG ?= build/test-trainers.log
PYTHON312 ?= python3.12
test-trainers: $(VENV)/.dev
	mkdir -p $(dir $(TRAINERS_LOG))
	cd tests && bash -o pipefail -c '$(abspath $(BIN))/python -m trainers.run $(TRAINERS) --python312 $(PYTHON312) \
	  --select "$(TRAINER_TESTS)" 2>&1 | sed -u -e "s|$(CURDIR)/||g" -e "s|/tmp/[^ ]*/||g" -e "s|/[^ ]*/codedance/trainer-|trainer-|g" \
	  | tee $(abspath $(TRAINERS_LOG))'

# Fifteen common pains of the field, tried on ours and on the installed TRL, verl and verifiers, in the same
# environments; writes experiments/pains/results.md. PAINS="--only resume" selects.
PAINS ?=
pains: $(VENV)/.dev
	$(BIN)/python -m experiments.pains $(PAINS)

# The environment with five conflicting sets of pins from a package index: compares the digests of 100 tasks.
# PYTHONS="python3.12 python3.13" uses other interpreters in turn.
test-environments: $(VENV)/.dev
	$(BIN)/python tests/five_environments.py $(addprefix --python ,$(PYTHONS))

# The golden digests (tests/golden) from a wheel under other conditions: a folder with a space and an umlaut,
# another locale, time zone, hash seed and user.
test-anywhere: $(VENV)/.dev
	$(BIN)/python tests/anywhere.py

# Tens of thousands of bad inputs, new at every run: command lines, flows.yaml, rows, replies, images.
fuzz: $(VENV)/.dev
	CODEDANCE_FUZZ=10 $(BIN)/python -m pytest -m slow tests/fuzz --timeout 3000

# Every attempt to escape from the sandbox, on every backend and isolation level available here, with its
# control; writes docs/escapes.md. ABI="2 3" LEVEL=confined AS=root (or nobody) selects versions of landlock, level and user,
# and only prints: ABI 0 is a kernel without landlock.
ABI =
LEVEL =
AS =
test-escapes: $(VENV)/.dev
	cd tests && $(abspath $(BIN))/python -m sandbox.escapes $(if $(ABI)$(LEVEL)$(AS),rows) \
	  $(if $(ABI),"abi=$(ABI)") $(if $(LEVEL),"level=$(LEVEL)") $(if $(AS),"user=$(AS)")

# The same attempts on kernels of distributions, in a virtual machine (tests/kernels/README.md); KERNEL="5.15 6.1" selects.
KERNEL ?= 6.1
test-kernels: $(VENV)/.dev
	cd tests && $(abspath $(BIN))/python -m kernels $(KERNEL) --log kernels/log.txt

# Soak test: 100,000 turns over 2,000 sessions while sessions and the zygote are killed.
test-soak: $(VENV)/.dev
	cd tests && $(abspath $(BIN))/python -m sandbox.soak

# Benchmarks against alternatives; each writes its measurements into build/bench. Takes hours on an idle machine.
bench: $(VENV)/.dev
	mkdir -p build/bench
	for name in sandbox rollout update envs store; do \
	  $(BIN)/python -m benchmarks.$$name --output build/bench/$$name.json || exit 1; done
	$(BIN)/python -m benchmarks.families

# Times of a run's viewer in Chromium: make viewer-times PAGE=.codedance/reports/RUN/viewer.html
viewer-times: $(VENV)/.dev
	cd tests && $(abspath $(BIN))/python -m pipelines.viewer.viewer_times $(abspath $(PAGE))

# Kills, Ctrl-C, full disks and unavailable servers, in every stage; writes docs/accidents.md. Half an hour.
test-accidents: $(VENV)/.dev
	cd tests && PYTHONPATH=$(CURDIR) $(abspath $(BIN))/python -m pipelines.accidents.accident_rows

# Seconds from kill -9 to the next new step, for the command and for a worker, three times each.
recovery-times: $(VENV)/.dev
	cd tests && $(abspath $(BIN))/python -m pipelines.accidents.recovery_times

# The sandbox's tests in the most common setting: a plain container, not as root.
test-container: $(VENV)/.dev
	$(BIN)/python tests/in_container.py

# The site, into build/site; warnings are errors. The variable silences a notice of mkdocs itself.
docs: $(VENV)/.dev
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

# Redraws the figures of the documentation from the code.
figures: $(VENV)/.dev
	$(BIN)/python docs/figures/draw.py

install: $(VENV)/.run

# torch first: without a GPU its CPU build (a tenth of the size), if an index that pip knows has it.
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
