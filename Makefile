# Linux, Python 3.11 or newer with pip and venv, make: nothing else is needed.
PYTHON ?= python3
VENV := .venv

.PHONY: run test faults endurance mutants test-containers lint bench bench-sketches bench-growth clean

# The manager replaces the shell. It stops in order when make is interrupted or terminated; only when make itself is
# killed is it killed too, and takes everything with it.
run: $(VENV)/requirements.stamp
	@exec setpriv --pdeathsig KILL -- $(VENV)/bin/python manage.py serve

test: $(VENV)/requirements-dev.stamp
	$(VENV)/bin/python -m pytest

# Every fault scenario, the long ones too. SEED=1 draws what an earlier run drew; REPORT=path writes the table there too.
faults: $(VENV)/requirements-dev.stamp
	$(VENV)/bin/python -m pytest -m "not mutants and not endurance" tests/faults $(SEED:%=--fault-seed %) $(REPORT:%=--fault-report %)

# Mixed load, and what every process holds after a minute, half-way and at the end. MINUTES=2 is a short one.
endurance: $(VENV)/requirements-dev.stamp
	MINUTES=$(or $(MINUTES),20) $(VENV)/bin/python -m pytest -m endurance -s tests/faults/test_endurance.py

# Takes guards out, one at a time, in a copy of the project: a scenario must fail.
mutants: $(VENV)/requirements-dev.stamp
	$(VENV)/bin/python -m pytest -m mutants tests/faults/test_mutants.py

# Needs a Docker engine and docker-compose, or COMPOSE="docker compose"; BUILD_OPTIONS go to docker build.
test-containers: $(VENV)/requirements-dev.stamp
	$(VENV)/bin/python -m pytest -m containers tests/containers

lint: $(VENV)/requirements-dev.stamp
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports

# How fast it is and what it takes, here and now; a quarter of an hour on two cores. PARTS="speed workers memory"
# chooses, BESIDE="swift=URL webdav=URL" names servers to compare with, BASE_URL a service of ours that runs already;
# JSON=path has every figure written there; OPTIONS="--repeat 5 --memory-gib 10" and more are in --help.
bench: $(VENV)/requirements.stamp
	$(VENV)/bin/python -m benchmarks.service $(PARTS:%=--part %) $(BESIDE:%=--beside %) $(JSON:%=--json %) $(OPTIONS)

# How good and how fast the sketches are; takes some twenty minutes on two cores.
bench-sketches: $(VENV)/requirements.stamp
	$(VENV)/bin/python -m benchmarks.sketches

# What grows with the number of files and chunks: ten million chunks unless FILES says less. PLANS=path writes plans too.
bench-growth: $(VENV)/requirements.stamp
	$(VENV)/bin/python -m benchmarks.growth $(FILES:%=--files %) $(PLANS:%=--plans %)

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/bin/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=...")'
	$(PYTHON) -m venv $(VENV)

$(VENV)/requirements.stamp: requirements.txt | $(VENV)/bin/python
	$(VENV)/bin/python -m pip install --disable-pip-version-check --quiet -r requirements.txt
	@touch $@

$(VENV)/requirements-dev.stamp: requirements-dev.txt requirements.txt | $(VENV)/bin/python
	$(VENV)/bin/python -m pip install --disable-pip-version-check --quiet -r requirements-dev.txt
	@touch $@ $(VENV)/requirements.stamp
