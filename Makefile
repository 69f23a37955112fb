# Two commands on a fresh machine: `make demo` and `make test`. Each sets itself up.
PYTHON ?= python3
VENV ?= .venv
# Demo: LANG_CODE=en or fa; ENGINE=espeak or flite; RUN is where the results go.
LANG_CODE ?= en
ENGINE ?= espeak
RUN ?= runs/demo
BIN := $(VENV)/bin

# What is imported is compiled once and kept, whatever the caller's environment says: nothing else compiles it.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test test-versions lint format clean

demo: $(VENV)/.demo
	$(BIN)/ttsfast demo --language $(LANG_CODE) --engine $(ENGINE) --run $(RUN)

test: $(VENV)/.dev lint
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

# The suite on the newest and the oldest torch that the package is for; downloads some gigabytes, takes an hour.
test-versions: $(VENV)/.dev
	$(BIN)/python bench/versions.py --output bench/results/versions.json

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python tests/support/installed_tree.py

format: $(VENV)/.dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# torch first and alone: the constraint picks its version before any range can pull another one. What is imported
# is compiled then; compiling all that is installed takes a minute.
$(VENV)/.torch: constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --no-compile -c constraints.txt torch
	touch $@

$(VENV)/.demo $(VENV)/.dev: $(VENV)/.%: $(VENV)/.torch pyproject.toml setup.py $(wildcard csrc/*.* csrc/*/*.*)
	$(BIN)/pip install --quiet --no-compile -c constraints.txt -e '.[$*]'
	touch $@

clean:
	rm -rf $(VENV) build dist *.egg-info
