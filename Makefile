# `make demo` and `make test` are all that a fresh machine needs: both set up .venv first.
BIN := .venv/bin
# Three processes, a file at a time, slow tiers first (tests/conftest.py): whole runs mostly wait, short tests fill the gaps.
PYTEST := $(BIN)/python -m pytest -n 3 --dist loadfile --no-loadscope-reorder --durations=15

.PHONY: help setup demo demo-compare test test-fast test-slow test-full lint format docs env-image
help:
	@echo "make demo       set up, train the embedded model, print before and after"
	@echo "make demo-compare  SDPO and GRPO with three seeds each in one report (40 minutes; again: goes on)"
	@echo "make test       set up, lint, run the tests (at most 20 minutes on 2 cores)"
	@echo "make test-fast  pure tests, and ruff on what changed (under 2 minutes on 2 cores)"
	@echo "make test-slow  the slow tests alone (at most 20 minutes); CI runs both"
	@echo "make test-full  all tests, the longest too"
	@echo "make lint       ruff, mypy, import-linter"
	@echo "make format     let ruff rewrite the code"
	@echo "make docs       write what scripts make again: pages, the drawing, the Grafana boards"
	@echo "make env-image  build the image of the docker sandbox"

setup:
	@deploy/setup.sh

demo: NAME := demo-$(shell date +%Y%m%d-%H%M%S)
demo: setup
	$(BIN)/sdpo train examples/tinycoder.yaml name=$(NAME)
	$(BIN)/sdpo report runs/$(NAME)

COMPARED := $(foreach kind,tinycoder tinycoder_grpo,$(foreach seed,0 1 2,runs/compare-$(kind)-$(seed)))
demo-compare: setup
	for seed in 0 1 2; do for kind in tinycoder tinycoder_grpo; do \
		test -d runs/compare-$$kind-$$seed/model || $(BIN)/sdpo train examples/$$kind.yaml name=compare-$$kind-$$seed seed=$$seed || exit; \
	done; done
	$(BIN)/sdpo report $(COMPARED) --out runs/compare.html

test: lint
	$(PYTEST) -m "not slow and not longest"

# Python files with changes that are not committed.
CHANGED = $(shell { git diff --name-only --diff-filter=d HEAD -- '*.py'; git ls-files --others --exclude-standard -- '*.py'; } | sort -u)
test-fast: setup
	$(if $(CHANGED),$(BIN)/ruff check $(CHANGED) && $(BIN)/ruff format --check $(CHANGED),@true)
	$(BIN)/lint-imports
	$(BIN)/python -m pytest tests/pure -n 2 --dist loadfile -q

test-slow: setup
	$(PYTEST) -m slow

test-full: lint
	$(PYTEST)

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet --site-dir site

format: setup
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: setup
	$(BIN)/python docs/make_config_reference.py
	$(BIN)/python docs/make_prometheus_reference.py
	$(BIN)/python docs/make_drawing.py
	$(BIN)/python docs/make_code_map.py
	$(BIN)/python deploy/monitoring/make_boards.py

env-image:
	@deploy/docker/build.sh
