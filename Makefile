# make quickstart   from data to a schedule comparison, in a few minutes on two CPU cores
# make test         the tests (make test-all: the slow ones too)
# make lint         formatting, lint, types
# make docs         the documentation as a site, in site/
# make bench        speed against peers: docs/results/benchmarks.md (14 minutes at most; bench-gpu: 9, on a GPU)

# The first of these that really runs (a version manager's stub may not) and is new enough.
PYTHON ?= $(shell for p in python3.12 python3.11 python3; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && exit; done; echo python3)
BIN := .venv/bin
# Two processes, a file of tests each; within a test torch uses one thread.
PARALLEL := -n 2 --dist loadfile

.PHONY: install quickstart test test-all lint docs bench bench-gpu

install: .venv/installed

.venv/installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "$(PYTHON) is too old, expected Python 3.11 or newer; type make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 2; }
	@echo "Installing into .venv (once; torch is large)"
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	# A peer that tests and benchmarks compare with; its declared dependencies hold a whole notebook server.
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps torchcfm==1.0.7
	@touch $@

quickstart: install
	@$(BIN)/fm-lightning run --config configs/digits.yaml $(ARGS)
	@echo "Next, CIFAR-10: $(BIN)/fm-lightning run -c configs/cifar10_small.yaml (CPU, about an hour) or -c configs/cifar10.yaml (GPU)"

test: install
	$(BIN)/python -m pytest $(PARALLEL) -m 'not slow' $(ARGS)

test-all: install
	$(BIN)/python -m pytest $(PARALLEL) $(ARGS)

lint: install
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

docs: install
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[docs]'
	$(BIN)/mkdocs build --strict $(ARGS)

bench: install
	$(BIN)/python -m benchmarks.run $(ARGS)

bench-gpu: install
	$(BIN)/python -m benchmarks.run --gpu $(ARGS)
