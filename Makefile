.PHONY: run test check bench setup lock docs

run: setup
	@.venv/bin/python -m deploy.run

test: setup
	@.venv/bin/pytest

check: setup
	.venv/bin/ruff format --check .
	.venv/bin/ruff check .
	.venv/bin/mypy

bench: setup
	@.venv/bin/python -m tests.bench $(ROWS)

setup: .venv/.ready

.venv/.ready: pyproject.toml requirements-dev.lock scripts/setup
	@scripts/setup

lock:
	@scripts/lock

docs: setup
	@.venv/bin/python -m agent.settings.reference > docs/configuration.md
