# Sets itself up: every target first makes .venv with Python's own venv and pip, once, and again only when
# pyproject.toml, constraints.txt or the interpreter change.
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
.PHONY: help train lesson test test-slow test-all lint type format bench reproduce clean

help: ## Show this list
	@echo 'cnnjax: conv / pool / dropout networks in JAX, with evidence. Targets:'
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 20
	@echo 'Variables: ARGS="..." for train, PYTHON=python3.13, EXTRAS=cuda13 or tpu at set-up.'

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  echo 'cnnjax: error: "$(PYTHON)" is missing or older than Python 3.11 (found: $(or $(VERSION),none)); use make PYTHON=/path/to/python3.11' >&2; exit 1; }
	@echo 'Setting up $(VENV) with Python $(VERSION) (once, about a minute) ...'
	@$(PYTHON) -m venv --clear $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev$(addprefix $(comma),$(EXTRAS))]'
	@touch $@

train: $(READY) ## Train the first tutorial's network on MNIST; options in ARGS="..."
	@$(BIN)/python -m cnnjax train $(ARGS)

# Most of the tests' time is LLVM's, for programs that run once: without its optimisation they take about three quarters.
test: $(READY) ## Run the unit tests (a few minutes, no network)
	@XLA_FLAGS="$${XLA_FLAGS---xla_backend_optimization_level=0}" $(BIN)/python -m pytest -m 'not slow' -n 2

test-slow: $(READY) ## Run the end-to-end tests: processes killed, whole runs, a browser (minutes)
	@$(BIN)/python -m pytest -m slow -n 2

test-all: ## Run every test, on programs compiled as users have them
	@XLA_FLAGS= $(MAKE) --no-print-directory test test-slow

lint: $(READY) ## Check style with ruff, and who imports whom with import-linter
	@$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/lint-imports --no-logo --no-cache

type: $(READY) ## Check types with pyright
	@$(BIN)/pyright

format: $(READY) ## Rewrite the code in the project's style
	@$(BIN)/ruff check --fix . && $(BIN)/ruff format .

PEERS := .peers
PEERS_READY := $(addprefix $(PEERS)/,$(addsuffix /.ready,flax keras-jax tf torch))

bench: $(READY) $(PEERS_READY) ## Compare the speed with Keras, PyTorch and plain Flax (an hour; ARGS="--quick": minutes)
	@$(BIN)/python experiments/benchmark_peers.py $(ARGS)

$(PEERS)/%/.ready: experiments/peers/requirements-%.txt
	@echo 'Setting up $(PEERS)/$* (once, about a minute) ...'
	@$(PYTHON) -m venv --clear $(PEERS)/$*
	@$(PEERS)/$*/bin/python -m pip install --quiet --disable-pip-version-check -r $<
	@touch $@

reproduce: $(READY) ## Run both tutorials with many seeds beside their published logs
	@$(BIN)/python experiments/reproduce_tutorials.py $(ARGS)

lesson: $(VENV)/.lesson ## Run docs/lesson.py cell by cell and keep it as docs/lesson.ipynb (minutes; on MNIST)
	@$(BIN)/jupytext --quiet --to ipynb --output docs/.lesson.ipynb docs/lesson.py
	@cd docs && "$(abspath $(BIN))/jupyter-execute" --inplace .lesson.ipynb
	@mv docs/.lesson.ipynb docs/lesson.ipynb

$(VENV)/.lesson: $(READY)
	@echo 'Adding what runs notebooks to $(VENV) (once) ...'
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[lesson]'
	@touch $@

clean: ## Remove the environment and caches; runs and results stay
	@rm -rf $(VENV) $(PEERS) .pytest_cache .ruff_cache .hypothesis build dist *.egg-info
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
