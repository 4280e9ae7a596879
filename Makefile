# make search   set up .venv, then search with the defaults
# make test     set up .venv, then run the tests
# make lint     ruff, mypy, cython-lint
# make sanitize tests of the compiled modules, built with address and bounds checks (GCC)
# make bench    benchmarks: each fast path beside the plain version of the same work
# make bench-gate      fails where the CPU kernels have become slower beside plain PyTorch
# make bench-baseline  measure anew what bench-gate compares with; on a machine that does nothing else
# make lock     write requirements.txt anew from what .venv holds

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
SOURCES := $(wildcard csrc/* csrc/cpu/*)

.PHONY: install search test lint sanitize bench bench-gate bench-baseline lock clean

install: $(READY)

search: $(READY)
	$(BIN)/python -m pnas_fast.search --fused

test: $(READY)
	$(BIN)/python -m pytest -n auto --dist loadfile

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	PATH="$(BIN):$$PATH" cython-lint csrc/*.pyx

sanitize: $(READY)
	bench/asan.sh $(BIN)/python

bench: $(READY)
	$(BIN)/python -m pytest bench

bench-gate: $(READY)
	$(BIN)/python bench/gate.py
	$(BIN)/python bench/instructions.py

bench-baseline: $(READY)
	$(BIN)/python bench/gate.py --update
	$(BIN)/python bench/instructions.py --update

lock: $(READY)
	$(BIN)/python -m pip freeze --exclude-editable --all | grep -v '^pip==' | sed 's/+cpu//' > requirements.txt

clean:
	rm -rf build dist *.egg-info pnas_fast/*.so

$(VENV)/.venv-made:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "$(PYTHON) is %d.%d, needed is 3.11 or newer: make PYTHON=python3.11" % sys.version_info[:2])'
	$(PYTHON) -m venv $(VENV)
	touch $@

$(VENV)/.packages: requirements.txt $(VENV)/.venv-made
	$(BIN)/python -m pip install --disable-pip-version-check --quiet -r requirements.txt
	touch $@

# Built with the pinned tools already in .venv, so that a changed source needs no network.
$(READY): $(VENV)/.packages setup.py pyproject.toml $(SOURCES)
	$(BIN)/python -m pip install --disable-pip-version-check --quiet --no-deps --no-build-isolation -e .
	touch $@
