# make search   set up .venv, then search with the defaults
# make test     set up .venv, then run the tests
# make test-fast    the tests that are not marked slow
# make test-lowest  the tests with the oldest packages that are allowed, in .venv-lowest
# make test-triton  tests of the Triton kernels with the oldest Triton that is allowed, in .triton-lowest
# make lint     ruff, mypy, import-linter, cython-lint
# make sanitize tests of the compiled modules, built with address and bounds checks (GCC)
# make bench    benchmarks: each fast path beside the plain version of the same work
# make bench-gate      fails where CPU kernels have become slower beside plain PyTorch or cannot be compared, or searches worse
# make bench-baseline  measure anew what bench-gate compares with; on a machine that does nothing else
# make lock     write requirements.txt anew from what .venv holds

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
SOURCES := $(wildcard csrc/* csrc/cpu/*)
PYTEST := -m pytest -n auto --dist loadfile
# What the gates are told, say --allow-uncompared; see bench/gate.py and bench/instructions.py.
RATIO_GATE ?=
INSTRUCTION_GATE ?=

export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: install search test test-fast test-lowest test-triton lint sanitize bench bench-gate bench-baseline lock clean

# For Linux pip fetches PyTorch with gigabytes of NVIDIA's libraries. Where there is no such GPU, and pip's own
# settings lead to no other build, uv fetches the one for CPUs: it knows where that is.
# Arguments: a virtual environment, a file with a line torch==VERSION.
define install_torch
	@set -e; torch=$$(grep '^torch==' $(2)); \
	if [ ! -e /proc/driver/nvidia ] && ! command -v nvidia-smi > /dev/null; then \
		echo "make: no NVIDIA GPU here: looking for PyTorch's build for CPUs"; \
		$(1)/bin/python -m pip install --quiet --dry-run --report $(1)/torch.json "$$torch" 2> /dev/null || true; \
		if grep -qs '"name": "nvidia-' $(1)/torch.json; then \
			$(1)/bin/python -m pip install uv \
			&& $(1)/bin/python -m uv pip install --python $(1) --no-deps --torch-backend cpu "$$torch" \
			|| echo "make: it cannot be fetched; the build for NVIDIA's GPUs does as well, and is 5.7 GB"; \
		fi; \
	fi
endef

install: $(READY)

search: $(READY)
	$(BIN)/python -m pnas_fast.search --fused

test: $(READY)
	$(BIN)/python $(PYTEST)

test-fast: $(READY)
	$(BIN)/python $(PYTEST) -m "not slow"

test-lowest: .venv-lowest/.ready
	.venv-lowest/bin/python $(PYTEST)

# What compiles and what interprets every kind of kernel. The oldest Triton's interpreter needs numpy before 2.4.
test-triton: $(READY) .triton-lowest/.ready
	PYTHONPATH=.triton-lowest $(BIN)/python $(PYTEST) \
		tests/test_triton_grouped.py tests/test_triton_tickets.py tests/test_triton_warm.py tests/test_triton_inspect.py

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache --no-logo
	PATH="$(BIN):$$PATH" cython-lint csrc/*.pyx

sanitize: $(READY)
	bench/asan.sh $(BIN)/python

bench: $(READY)
	$(BIN)/python -m pytest bench

bench-gate: $(READY)
	$(BIN)/python bench/gate.py $(RATIO_GATE)
	$(BIN)/python bench/instructions.py $(INSTRUCTION_GATE)
	$(BIN)/python bench/quality.py

bench-baseline: $(READY)
	$(BIN)/python bench/gate.py --update
	$(BIN)/python bench/instructions.py --update

lock: $(READY)
	$(BIN)/python -m pip freeze --exclude-editable --all | grep -v -e '^pip==' -e '^uv==' | sed 's/+cpu//' > requirements.txt

clean:
	rm -rf build dist *.egg-info pnas_fast/*.so

%/.venv-made:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "$(PYTHON) is %d.%d, needed is 3.11 or newer: make PYTHON=python3.11" % sys.version_info[:2])'
	@echo "make: setting up $*: an environment of its own, packages, compiled modules; minutes, the first time only"
	$(PYTHON) -m venv $*
	touch $@

$(VENV)/.packages: requirements.txt $(VENV)/.venv-made
	$(call install_torch,$(VENV),requirements.txt)
	@echo "make: installing the packages of requirements.txt"
	$(BIN)/python -m pip install -r requirements.txt
	touch $@

# Built with the pinned tools already in .venv, so that a changed source needs no network.
$(READY): $(VENV)/.packages setup.py pyproject.toml $(SOURCES)
	@echo "make: compiling the C++ and Cython modules, which takes a minute or two"
	$(BIN)/python -m pip install --no-deps --no-build-isolation -e .
	touch $@

.triton-lowest/.ready: constraints-lowest.txt $(READY)
	rm -rf .triton-lowest
	$(BIN)/python -m pip install --quiet --no-deps --target .triton-lowest \
		"$$(sed -n 's/^\(triton==[0-9.]*\).*/\1/p' constraints-lowest.txt)" 'numpy<2.4'
	touch $@

.venv-lowest/.ready: constraints-lowest.txt .venv-lowest/.venv-made setup.py pyproject.toml $(SOURCES)
	$(call install_torch,.venv-lowest,constraints-lowest.txt)
	@echo "make: installing the oldest packages that are allowed, and compiling"
	.venv-lowest/bin/python -m pip install --constraint constraints-lowest.txt -e '.[test]'
	touch $@
