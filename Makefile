# One command each: `make` lists them. Needs Python 3.11 or newer, git and make; everything else is installed
# into .venv and .cache of this checkout.
PYTHON ?= python3
BIN := .venv/bin
.DEFAULT_GOAL := help

.PHONY: help demo up test bench chaos guards lint format lock screenshots clean

help: ## List the commands
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## /\1\t/' | expand -t 13

demo: .venv/ready .cache/node ## Show the main job on embedded servers; ends by itself, leaves nothing running
	@$(BIN)/python -m sandbox.demo

up: .venv/ready .cache/node ## The same world, kept running until Ctrl-C
	@$(BIN)/python -m sandbox.up

test: .venv/ready .cache/node ## Run the tests
	@$(BIN)/python -m pytest -q -n 2 --dist loadfile $(ARGS)

bench: .venv/ready .cache/node ## Measure, and write benchmarks/results/latest.json
	@$(BIN)/python -m benchmarks $(ARGS)

chaos: .venv/ready .cache/node ## Strike the whole product for ten minutes and prove it; ONLY=a,b SEED=7 SOAK=minutes
	@$(BIN)/python -m sandbox.chaos --write $(if $(ONLY),--only $(ONLY)) $(if $(SEED),--seed $(SEED)) \
	  $(if $(SOAK),--soak $(SOAK)) $(ARGS)

guards: .venv/ready .cache/node ## Take every guard away, one at a time, and see its test fail
	@$(BIN)/python -m tests.guards $(ARGS)

lint: .venv/ready ## Lint, types and import contracts
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: .venv/ready ## Format, and mend what can be mended
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

lock: .venv/ready ## Resolve the dependencies anew into requirements.lock
	$(BIN)/uv pip compile --universal --python-version 3.11 --generate-hashes --no-header -q --upgrade \
	  pyproject.toml --group dev -o requirements.lock

screenshots: .venv/ready .cache/node ## Photograph every page; the best go to docs/screenshots
	@$(BIN)/python -m sandbox.screenshots

clean: ## Remove what the other commands installed
	rm -rf .venv .cache

.venv/ready: requirements.lock
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "Python 3.11 or newer is needed; $(PYTHON) is older. Try: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	@echo "Installing into .venv (once)"
	@$(PYTHON) -m venv .venv
	@mkdir -p .cache
	@sed -n '/^uv==/,/[^\\]$$/p' requirements.lock > .cache/installer.txt
	@$(BIN)/python -m pip install -q --disable-pip-version-check --require-hashes --no-deps -r .cache/installer.txt
	@$(BIN)/uv pip sync -q --require-hashes --python $(BIN)/python requirements.lock
	@touch $@

.cache/node: .venv/ready sandbox/lite/package-lock.json
	@$(BIN)/python -m sandbox.servers.node
	@touch $@
