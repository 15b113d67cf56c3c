# Needs GNU make (3.81 or newer) and Python 3.11 or newer, nothing else. Every target makes .venv itself, once.
#   PYTHON=...  the interpreter .venv is made with (used only while there is no .venv)
#   ARGS=...    more arguments for test and bench, as in: make test ARGS="-k gae"
#   SLOW=1, COVERAGE=1  all tests; with coverage
#   NOTEBOOKS=...  which of notebooks/*.py to execute

CANDIDATES := $(if $(PYTHON),$(PYTHON),python3 python3.12 python3.11 python3.13 python3.14 python)
BIN := .venv/bin
STAMP := .venv/.installed
NOTEBOOKS := notebooks/*.py
DEMO := runs/demo
COVERED := 92

.DEFAULT_GOAL := help
.PHONY: help install demo test lint bench docs notebooks

help: ## this list
	@awk -F ':.*## ' '/^[a-z]+:.*## /{printf "make %-9s %s\n", $$1, $$2}' Makefile

install: $(STAMP) ## make .venv with the package, editable, and its tools, at the versions of constraints.txt

demo: $(STAMP) ## train 5 policies on HalfCheetah and on Resource Gathering, draw the reports (under 5 minutes)
	rm -rf $(DEMO)
	$(BIN)/rmdp-jax train halfcheetah_speed --k 5 --seed 0 --transitions 150000 --out $(DEMO)/halfcheetah_speed
	$(BIN)/rmdp-jax train resource_gathering --k 5 --seed 0 --transitions 300000 --out $(DEMO)/resource_gathering

test: $(STAMP) ## run the tests but those that take long; SLOW=1: all, as CI does; COVERAGE=1: what they cover, a quarter slower
	$(BIN)/python -m pytest -n auto --dist loadfile --no-loadscope-reorder $(if $(SLOW),,-m "not slow") $(if $(COVERAGE),--cov --cov-report=term --cov-fail-under=$(COVERED)) $(ARGS)

lint: $(STAMP) ## ruff check, ruff format --check, mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(STAMP) ## transitions per second with learning, compile time, rollout and update shares
	$(BIN)/python -m benchmarks.throughput --env resource_gathering --k 5 $(ARGS)

docs: $(STAMP) ## build the documentation into site/, warnings are errors
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet
	@echo "open site/index.html; with its search: $(BIN)/python -m http.server --directory site, then http://localhost:8000"

notebooks: $(STAMP) ## execute the notebooks into runs/notebooks/*.ipynb (a minute or more each on a CPU)
	for notebook in $(NOTEBOOKS); do \
	  executed=runs/notebooks/$$(basename $$notebook .py).ipynb; mkdir -p runs/notebooks; echo "$$notebook -> $$executed"; \
	  $(BIN)/jupytext --quiet --to ipynb --output $$executed $$notebook && $(BIN)/jupyter execute --inplace $$executed || exit 1; done

# A .venv that runs is kept and brought up to date; a missing or broken one is made afresh.
$(STAMP): pyproject.toml constraints.txt
	@usable() { "$$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; }; \
	if usable $(BIN)/python && $(BIN)/python -m pip --version >/dev/null 2>&1; then exit 0; fi; \
	for python in $(CANDIDATES); do usable $$python && break; python=; done; \
	if [ -z "$$python" ]; then \
	  echo "error: no Python 3.11 or newer among: $(CANDIDATES). Install one, or name it: make install PYTHON=/path/to/python3.12" >&2; exit 1; fi; \
	if ! $$python -c 'import ensurepip, venv' 2>/dev/null; then \
	  echo "error: $$python cannot make virtual environments. On Debian and Ubuntu: sudo apt install python3-venv" >&2; exit 1; fi; \
	echo "making .venv with $$($$python --version) ($$(command -v $$python))"; \
	$$python -m venv --clear .venv
	@echo "installing into .venv (about 1 minute, longer where the downloads are slow)"
	@$(BIN)/python -m pip install --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@
	@echo "installed; .venv is ready"
