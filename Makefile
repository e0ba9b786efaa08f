# Every target first creates .venv with Python's own venv and pip, and recreates it only when pyproject.toml,
# constraints.txt or the interpreter changes.
#   make train ARGS="--dropout-rate 0 --epochs 5"   PYTHON=python3.13   EXTRAS=cuda13

PYTHON ?= python3
ARGS ?=
EXTRAS ?=
VENV := .venv
BIN := $(VENV)/bin
VERSION := $(shell $(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null)
comma := ,
READY := $(VENV)/.ready-$(VERSION)$(subst $(comma),-,$(addprefix -,$(EXTRAS)))

.DEFAULT_GOAL := help
.PHONY: help train lesson docs evidence test test-slow test-all mutants lint type format bench reproduce clean

help: ## Show this list
	@echo 'cnnjax: conv / pool / dropout networks in JAX. Targets:'
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 18
	@echo 'Variables: ARGS="..." (options), PYTHON=python3.13, EXTRAS=cuda13 or tpu.'

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  echo 'cnnjax: error: "$(PYTHON)" is missing or older than Python 3.11 (found: $(or $(VERSION),none)); use make PYTHON=/path/to/python3.11' >&2; exit 1; }
	@echo 'Setting up $(VENV) with Python $(VERSION) (once, about a minute) ...'
	@$(PYTHON) -m venv --clear $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev$(addprefix $(comma),$(EXTRAS))]'
	@touch $@

train: $(READY) ## Train the first tutorial's network on MNIST
	@$(BIN)/python -m cnnjax train $(ARGS)

# Compiling takes most of the tests' time, for programs that run once: without LLVM's optimisation and, in jaxlibs that
# have the flag, XLA's emitters of fused loops, a third of it. What is fused is then rounded otherwise, unless there is no
# fused multiply-add, as in SSE 4.2.
SOON := --xla_backend_optimization_level=0
SOONER := $(SOON) --xla_llvm_disable_expensive_passes=true --xla_cpu_parallel_codegen_split_count=1 \
  $(if $(filter x86_64 amd64,$(shell uname -m)),--xla_cpu_use_fusion_emitters=false --xla_cpu_max_isa=SSE4_2)

$(VENV)/.xla-flags: $(READY) Makefile
	@(JAX_PLATFORMS=cpu XLA_FLAGS="$(SOONER)" $(BIN)/python -c 'import jax; jax.devices()') >/dev/null 2>&1 \
	  && echo "$(SOONER)" >$@ || echo "$(SOON)" >$@

test: $(VENV)/.xla-flags ## Run the unit tests (three minutes on two cores, no network)
	@XLA_FLAGS="$${XLA_FLAGS-$$(cat $<)}" $(BIN)/python -m pytest -m 'not slow' -n 2 --dist worksteal

test-slow: $(READY) ## Run the end-to-end tests (minutes)
	@XLA_FLAGS="$${XLA_FLAGS-$(SOON)}" $(BIN)/python -m pytest -m slow -n 2 --dist worksteal

test-all: $(VENV)/.xla-flags ## Run all tests, the unit tests with full compiler optimisation
	@XLA_FLAGS="$$(grep -o '[^ ]*split_count=1' $<)" $(MAKE) --no-print-directory test
	@$(MAKE) --no-print-directory test-slow

mutants: $(VENV)/.mutants ## Change the core on purpose and count what the tests notice (an hour)
	@$(BIN)/python tests/mutants.py $(ARGS)

$(VENV)/.mutants: $(READY)
	@echo 'Installing cosmic-ray in $(VENV) (once) ...'
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[mutants]'
	@touch $@

lint: $(READY) ## Check style with ruff and imports with import-linter
	@$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/lint-imports --no-logo --no-cache

type: $(READY) ## Check types with pyright
	@$(BIN)/pyright

format: $(READY) ## Format the code with ruff
	@$(BIN)/ruff check --fix . && $(BIN)/ruff format .

PEERS := .peers
PEERS_READY := $(addprefix $(PEERS)/,$(addsuffix /.ready,flax keras-jax tf torch))

bench: $(READY) $(PEERS_READY) ## Benchmark against Keras, PyTorch and Flax (an hour)
	@$(BIN)/python experiments/benchmark_peers.py $(ARGS)

$(PEERS)/%/.ready: experiments/peers/requirements-%.txt
	@echo 'Setting up $(PEERS)/$* (once, about a minute) ...'
	@$(PYTHON) -m venv --clear $(PEERS)/$*
	@$(PEERS)/$*/bin/python -m pip install --quiet --disable-pip-version-check -r $<
	@touch $@

reproduce: $(READY) ## Compare many seeds with the tutorials' published results
	@$(BIN)/python experiments/reproduce_tutorials.py $(ARGS)

evidence: $(READY) ## Write docs/evidence.md from results/*/summary.json
	@$(BIN)/python experiments/evidence.py

docs: $(VENV)/.docs ## Build the documentation into site/, for reading offline
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet
	@echo 'Open site/index.html.'

$(VENV)/.docs: $(READY)
	@echo 'Installing the documentation tools in $(VENV) (once) ...'
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[docs]'
	@touch $@

lesson: $(VENV)/.lesson ## Run docs/lesson.py and write docs/lesson.ipynb (minutes)
	@$(BIN)/jupytext --quiet --to ipynb --output docs/.lesson.ipynb docs/lesson.py
	@cd docs && "$(abspath $(BIN))/jupyter-execute" --inplace .lesson.ipynb
	@mv docs/.lesson.ipynb docs/lesson.ipynb

$(VENV)/.lesson: $(READY)
	@echo 'Installing the notebook tools in $(VENV) (once) ...'
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[lesson]'
	@touch $@

clean: ## Remove environments and caches; keep runs and results
	@rm -rf $(VENV) $(PEERS) .pytest_cache .ruff_cache .hypothesis build dist site *.egg-info
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
