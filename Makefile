# Every target does its own set-up: a virtual environment in .venv with everything at the versions of constraints.txt.
PYTHON ?= python3
PLUGINS := $(sort $(patsubst %/pyproject.toml,%,$(wildcard plugins/*/pyproject.toml)))
BIN := .venv/bin
READY := .venv/ready
OLDER := .venv/older-megatron
# Only the few modules that are imported get compiled, and the build tools are installed once, not once a distribution.
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --no-compile

.PHONY: help demo test lint types check bench docs site clean

help:
	@echo "make demo    convert a small model both ways, prove it and show it"
	@echo "make test    run all tests"
	@echo "make check   tests, lint and types"
	@echo "make docs    write docs/support.md, docs/commands and the tables of other pages anew"
	@echo "make site    build the documentation as a site, in site/"
	@echo "make bench   measure speed beside the committed figures (some minutes, 8 GB of disk)"

$(READY): constraints.txt requirements-dev.txt core/pyproject.toml $(addsuffix /pyproject.toml,$(PLUGINS))
	@echo "setting up .venv, which takes a minute or two"
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(PIP) --requirement requirements-dev.txt
	$(PIP) --no-build-isolation --editable core $(addprefix --editable ,$(PLUGINS))
	touch $@

demo: $(READY)
	$(BIN)/python examples/demo.py

# An older megatron-core, in a folder of its own that only the processes see which are to run it.
$(OLDER)/ready: tests/older-megatron.txt | $(READY)
	rm -rf $(OLDER)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --target $(OLDER) --requirement $<
	touch $@

test: $(READY) $(OLDER)/ready
	$(BIN)/python -m pytest --quiet --numprocesses 2 --dist loadgroup --max-worker-restart 0

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(READY)
	$(BIN)/mypy

check: lint types test

bench: $(READY)
	$(BIN)/python benchmarks/figures.py $(BENCH)

docs: $(READY)
	$(BIN)/python tests/support_table.py
	$(BIN)/python tests/options_page.py
	$(BIN)/python tests/command_pages.py
	$(BIN)/python tests/concept_figures.py
	$(BIN)/python tests/plugin_reference.py

# The site's tools stand apart: they share packages with the program's, at other versions.
.venv-site/ready: docs/requirements.txt
	test -x .venv-site/bin/python || $(PYTHON) -m venv .venv-site
	.venv-site/bin/python -m pip install --quiet --disable-pip-version-check --requirement docs/requirements.txt
	touch $@

site: .venv-site/ready
	NO_MKDOCS_2_WARNING=1 .venv-site/bin/mkdocs build --quiet --strict

clean:
	rm -rf .venv .venv-site site
