.PHONY: run shell test image-test check bench soak attack fuzz mutants setup lock docs

run: setup
	@.venv/bin/python -m deploy.run

shell:
	@.venv/bin/python -m deploy.shell $(COMMAND)

# Test modules are compiled once, not by each worker of each run.
PYTEST = PYTHONDONTWRITEBYTECODE= .venv/bin/pytest --numprocesses auto --dist loadgroup

test: .venv/.ready-to-test
	@$(PYTEST)

.PHONY: walk
walk: .venv/.ready-to-test
	@SWARM_WALK_SECONDS="$(SECONDS)" .venv/bin/pytest -n0 tests/walk

image-test: .venv/.ready-to-test
	@$(PYTEST) tests/image

check: .venv/.ready-to-develop
	.venv/bin/ruff format --check .
	.venv/bin/ruff check .
	.venv/bin/mypy
	scripts/audit

bench: .venv/.ready-to-develop
	@.venv/bin/python -m tests.bench $(ROWS)

soak: .venv/.ready-to-develop
	@.venv/bin/python -m tests.soak

attack: .venv/.ready-to-develop
	@.venv/bin/python -m tests.attack $(WITH)

fuzz: .venv/.ready-to-develop
	@.venv/bin/python -m pip install -qq --disable-pip-version-check atheris
	@.venv/bin/python -m tests.fuzz $(TARGETS)

mutants: .venv/.ready-to-develop
	@.venv/bin/python -m tests.mutants $(MODULES)

setup: .venv/.ready

.venv/.ready: pyproject.toml requirements-laptop.lock scripts/setup
	@scripts/setup

.venv/.ready-to-develop: pyproject.toml requirements-dev.lock scripts/setup
	@scripts/setup --dev

.venv/.ready-to-test: pyproject.toml requirements-dev.lock scripts/setup tests/tools/package-lock.json
	@scripts/setup --tests

lock:
	@scripts/lock

docs: .venv/.ready-to-develop
	@scripts/licences > docs/licences.md
	@.venv/bin/python -m agent.settings.reference > docs/configuration.md
	@.venv/bin/python -m agent.observe.reference metrics > docs/metrics.md
	@.venv/bin/python -m agent.observe.reference events > docs/events.md
	@.venv/bin/python -m deploy.grafana.make
