# Each target sets up what it needs in .venv; a machine with Python 3.11+ and make is enough.
#   make demo [FILE=array.npy]    make test [ARGS="-k locks"]    make faults    make fuzz    make remote    make bench [ARGS=...]    make lint    make format
PYTHON ?= python3
ARGS ?=
FILE ?=

VENV := .venv
BIN := $(VENV)/bin
# Two files of tests at a time, in the order of their collection: many tests mostly wait.
IN_TWO := -n 2 --dist loadfile --no-loadscope-reorder
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --editable

.PHONY: help demo test faults remote fuzz fuzz-guided bench lint format clean
.DEFAULT_GOAL := help

help:
	@sed -n 's/^# *\(make .*\)/\1/p' Makefile

demo: $(VENV)/.cli
	$(BIN)/arrayhost demo $(FILE)

test: $(VENV)/.dev
	$(BIN)/python -m pytest $(IN_TWO) $(ARGS)

# Minutes of kills, stops, interrupts, forks and failing calls at random points; prints seeds and figures.
faults: $(VENV)/.dev
	ARRAYHOST_FAULTS=long ARRAYHOST_MANY=100000 $(BIN)/python -m pytest -s --timeout 1200 tests/faults tests/disk \
		tests/hostile/test_switched_off.py tests/hostile/test_stalls.py tests/hostile/test_memory.py \
		tests/process/test_many_arrays.py::test_a_hundred_thousand_at_once_under_1024_descriptors $(ARGS)

# The conformance and consumers suites once more, all of them, on a host that is reached over TCP.
remote: $(VENV)/.dev
	ARRAYHOST_REMOTE=all $(BIN)/python -m pytest $(IN_TWO) -k tcp tests/conformance tests/consumers $(ARGS)

fuzz: $(VENV)/.dev
	$(BIN)/python -m tests.hostile.fuzz $(or $(FRAMES),1000000)

# The same with atheris, which looks for inputs that reach code that none has reached.
fuzz-guided: $(VENV)/.dev
	$(INSTALL) '.[fuzz]'
	$(BIN)/python -m tests.hostile.guided $(or $(RUNS),1000000)

bench: $(VENV)/.dev
	$(BIN)/python -m benchmarks $(ARGS)

# Every check runs even if an earlier one fails, so that one run tells all.
lint: $(VENV)/.dev
	@status=0; \
	for check in "ruff check ." "ruff format --check ." "mypy" "codespell"; do \
		echo "$$check"; $(BIN)/$$check || status=1; \
	done; \
	exit $$status

format: $(VENV)/.dev
	$(BIN)/ruff check --fix-only .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find src tests -name __pycache__ -type d -prune -exec rm -rf {} +

# A venv that could not be finished is removed: the next run must not take it for a good one.
$(VENV)/.created:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "arrayhost needs Python 3.11 or newer, and '$(PYTHON)' is: $$($(PYTHON) --version 2>&1)" >&2; \
		echo "Name another one: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 1; }
	@$(PYTHON) -m venv --clear $(VENV) || { rm -rf $(VENV); \
		echo "'$(PYTHON) -m venv' failed; Debian and Ubuntu keep it in the package python3-venv" >&2; exit 1; }
	@touch $@

$(VENV)/.cli: pyproject.toml | $(VENV)/.created
	$(INSTALL) '.[cli]'
	@touch $@

# dev contains cli, hence both stamps.
$(VENV)/.dev: pyproject.toml | $(VENV)/.created
	$(INSTALL) '.[dev]'
	@touch $(VENV)/.cli $@
