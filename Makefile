# Needs a python3 of 3.11 or newer, or `make PYTHON=python3.12 …`; everything else comes from the locked requirements.
PYTHON ?= python3
LOCK = .venv/bin/uv pip compile --quiet --universal --generate-hashes --no-emit-index-url --no-header

.PHONY: setup dev demo test lint bench lock
setup: .venv/runtime.stamp
dev: .venv/dev.stamp
demo: setup ; .venv/bin/fluxgate demo
test: lint ; .venv/bin/python -m pytest
lint: dev ; .venv/bin/ruff check . && .venv/bin/ruff format --check . && .venv/bin/mypy
bench: dev ; .venv/bin/python -m bench

# Resolves anew within pyproject.toml's bounds; read the difference before you commit it.
lock: .venv/setup.stamp
	$(LOCK) --upgrade pyproject.toml --output-file requirements.txt
	$(LOCK) --upgrade pyproject.toml --group dev --constraints requirements.txt --output-file requirements-dev.txt
	$(LOCK) --upgrade --group setup --constraints requirements-dev.txt --output-file requirements-setup.txt

.venv/setup.stamp: requirements-setup.txt
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("fluxgate: Python %d.%d is too old: run make with PYTHON=python3.11 or newer" % sys.version_info[:2])'
	$(PYTHON) -m venv .venv
	.venv/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-setup.txt
	touch $@

.venv/runtime.stamp: .venv/setup.stamp requirements.txt pyproject.toml
	.venv/bin/uv pip install --quiet --python .venv --require-hashes -r requirements.txt
	.venv/bin/uv pip install --quiet --python .venv --no-build-isolation --no-deps --editable .
	touch $@

.venv/dev.stamp: .venv/runtime.stamp requirements-dev.txt
	.venv/bin/uv pip install --quiet --python .venv --require-hashes -r requirements-dev.txt
	touch $@
