# demo, test and lint each make the virtual environment .venv when it is needed, and need only make and Python >= 3.10.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
BUILD_INPUTS := pyproject.toml setup.py $(wildcard scripts/*.py csrc/*/*)
CXX_SOURCES := $(wildcard csrc/*/* tests/csrc/*/*.[ch]*)

.DEFAULT_GOAL := help
.PHONY: help demo test lint format bench sanitize fuzz clean

help:  ## this list
	@grep -hE '^[a-z]+:.*##' Makefile | sed -E 's/^([a-z]+):.*## /make \1\t/' | expand -t 16

demo: $(VENV)/.demo  ## train on pictures that come along, and show what was learned
	$(BIN)/fastdino demo

# A process a core, each on one thread: the tests are small, and more threads would wait for one another.
test: $(VENV)/.test  ## the whole test suite
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --maxprocesses 8 --dist loadfile

lint: $(VENV)/.dev  ## style, types and C++ formatting
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/clang-format --dry-run -Werror $(CXX_SOURCES)

format: $(VENV)/.dev  ## rewrite the sources as lint wants them
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/clang-format -i $(CXX_SOURCES)

bench: $(VENV)/.test  ## measure speed
	$(BIN)/python -m pytest benchmarks

sanitize: $(VENV)/.test  ## run csrc/ on good and damaged files under the address, behaviour and thread sanitizers
	$(BIN)/python scripts/sanitize.py

FUZZ_SECONDS ?= 60
fuzz: $(VENV)/.test  ## a minute of invented JPEGs for csrc/, which needs clang; FUZZ_SECONDS=600 for ten
	@sh scripts/system_packages.sh $(PYTHON) clang++
	$(BIN)/python scripts/fuzz.py --seconds $(FUZZ_SECONDS)

clean:  ## remove everything that make has made
	rm -rf $(VENV) build dist *.egg-info fastdino/_native.*.so
	rm -rf .pytest_cache .mypy_cache .ruff_cache .hypothesis .benchmarks

# Says in one line if the extension was not built: pip shows nothing of what a build prints.
SAY_PATH = @$(BIN)/python -c 'from fastdino import native; print(native.why_not() or "native extension built")'

$(VENV)/.created:
	@sh scripts/system_packages.sh $(PYTHON)
	$(PYTHON) -m venv $(VENV)
	@touch $@

# Each installation holds the ones before it, so that the larger one counts for the smaller.
$(VENV)/.demo: $(VENV)/.created $(BUILD_INPUTS)
	$(BIN)/python -m pip install -e .
	$(SAY_PATH)
	@touch $@

$(VENV)/.test: $(VENV)/.created $(BUILD_INPUTS)
	$(BIN)/python -m pip install -e '.[test]'
	$(SAY_PATH)
	@touch $(VENV)/.demo $@

$(VENV)/.dev: $(VENV)/.created $(BUILD_INPUTS)
	$(BIN)/python -m pip install -e '.[dev]'
	$(SAY_PATH)
	@touch $(VENV)/.demo $(VENV)/.test $@
