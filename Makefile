# The first two targets are all a user needs: `make serve` and `make test`.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.ready
DATA   ?= ./data
COUCH  := $(VENV)/couch/.ready

.PHONY: help serve cluster test soak check format bench clean

help: ## Show the targets
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit("Tierce needs Python 3.11 or newer, and $(PYTHON) is " + sys.version.split()[0] + "; try: make PYTHON=python3.11 $(MAKECMDGOALS)" if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --upgrade 'pip>=25.1'
	$(BIN)/pip install --quiet --constraint constraints.txt --editable . --group dev
	@touch $(STAMP)

serve: $(STAMP) ## Run a node on 127.0.0.1:7070 with its data in ./data
	exec $(BIN)/tierce serve --data $(DATA)

cluster: $(STAMP) ## Run three nodes on this machine, with their data in ./cluster
	@TIERCE=$(BIN)/tierce sh tools/cluster.sh

# The tests start hundreds of processes, and each would compile what no other has kept for it.
test soak: export PYTHONDONTWRITEBYTECODE =

# The tests of `tierce couch` have a real server of CouchDB's HTTP, where npm is there to install it.
$(COUCH): tests/couch/package.json | $(STAMP)
	@if command -v npm >/dev/null; then \
	    mkdir -p $(@D) && cp $< $(@D) && \
	    npm install --prefix $(@D) --loglevel error --no-audit --no-fund --omit=optional \
	        --ignore-scripts --no-package-lock && touch $@ || \
	    echo "npm could not install the server of tests/couch: its tests are skipped"; \
	fi

test: $(STAMP) $(COUCH) ## Run the tests
	$(BIN)/pytest -n 4 --dist worksteal

soak: $(STAMP) ## Run the long tests, and a thousand simulations of each kind under faults
	$(BIN)/pytest -n 2 --dist worksteal -m long
	$(BIN)/python -m tierce.testing.soak --seeds 1000
	$(BIN)/python -m tierce.testing.soak --names --seeds 1000
	$(BIN)/python -m tierce.testing.soak --stores --seeds 1000

check: $(STAMP) ## Format, lint, types and import contracts
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(STAMP) ## Rewrite the sources in the house format
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(STAMP) ## Measure speed against a reference in the same run (needs wrk and nginx)
	$(BIN)/python -m bench

clean: ## Remove the virtual environment and caches (never the data)
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
