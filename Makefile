# `make demo` and `make test` are all that a fresh machine needs: both set up .venv first.
BIN := .venv/bin
PYTEST := PYTHON=$(BIN)/python tests/side_by_side.sh

.PHONY: help setup demo test test-full lint format docs env-image
help:
	@echo "make demo       set up, train the embedded model, print before and after"
	@echo "make test       set up, lint, run the tests (at most 20 minutes on 2 cores)"
	@echo "make test-full  the same with the slow tests"
	@echo "make lint       ruff, mypy, import-linter"
	@echo "make format     let ruff rewrite the code"
	@echo "make docs       write docs/config.md again"
	@echo "make env-image  build the image of the docker sandbox"

setup:
	@deploy/setup.sh

demo: setup
	$(BIN)/sdpo train examples/tinycoder.yaml name=demo-$(shell date +%Y%m%d-%H%M%S)

test: lint
	$(PYTEST) -m "not slow"

test-full: lint
	$(PYTEST)

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: setup
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: setup
	$(BIN)/python docs/make_config_reference.py

env-image:
	@deploy/docker/build.sh
