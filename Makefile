# A machine needs Linux, Python 3.11 or newer with pip and venv, and make. Nothing else has to be installed.
PYTHON ?= python3
VENV := .venv
FUZZ := .venv-schemathesis
BROWSER := .venv-browser

.DEFAULT_GOAL := help
.PHONY: help run check lint test fuzz format coverage faults endurance mutants test-browser pictures clients test-containers \
	bench bench-sketches bench-growth bench-volumes lock sbom clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-16s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))

# The process manager replaces the shell. When make is interrupted or terminated, the manager stops all programs in
# order. When make itself is killed, the kernel kills the manager, and every program with it.
run: $(VENV)/requirements.stamp ## start the whole system, in the foreground
	@exec setpriv --pdeathsig KILL -- $(VENV)/bin/python manage.py serve

check: lint test fuzz ## run all that a change must pass

lint: $(VENV)/requirements-dev.stamp ## check style, types and import contracts
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports

# Files of tests run in three processes at the same time, each process with its own databases: tests often wait, so three
# processes keep two cores busy. WORKERS=0 runs all files one after the other.
test: $(VENV)/requirements-dev.stamp ## run the tests, and list the ten slowest
	$(VENV)/bin/python -m pytest -n $(or $(WORKERS),3) --dist loadfile --durations 10

# Each operation gets a few made-up requests, within two minutes. MINUTES=10 runs for ten minutes with keys off, and
# then for ten minutes with keys on.
fuzz: $(VENV)/requirements-dev.stamp $(FUZZ)/requirements.stamp ## compare the live API with its schema, by made-up requests
	$(MINUTES:%=FUZZ_MINUTES=%) $(VENV)/bin/python -m pytest -m fuzz tests/fuzz

format: $(VENV)/requirements-dev.stamp ## sort imports, mend what ruff can mend, and format
	$(VENV)/bin/ruff check --fix .
	$(VENV)/bin/ruff format .

# The floor is fail_under in pyproject.toml. Programs that tests start as processes of their own are not measured.
coverage: $(VENV)/requirements-dev.stamp ## run the tests, and fail if they reach too little of the code
	$(VENV)/bin/python -m pytest --cov --cov-report=term:skip-covered

# SEED=1 repeats the random choices of an earlier run. REPORT=path writes the table of results to a file too.
faults: $(VENV)/requirements-dev.stamp ## break everything that can break: 75 minutes
	$(VENV)/bin/python -m pytest -m "not mutants and not endurance" tests/faults $(SEED:%=--fault-seed %) $(REPORT:%=--fault-report %)

# The test prints the resources that each process holds after a minute, half-way and at the end. MINUTES=2 makes it
# short.
endurance: $(VENV)/requirements-dev.stamp ## run mixed load for twenty minutes
	MINUTES=$(or $(MINUTES),20) $(VENV)/bin/python -m pytest -m endurance -s tests/faults/test_endurance.py

mutants: $(VENV)/requirements-dev.stamp ## take guards out of a copy of the project: a scenario must fail for each
	$(VENV)/bin/python -m pytest -m mutants tests/faults/test_mutants.py

# Playwright has a virtual environment of its own. Chromium is Debian's package; CHROMIUM=path names another one.
# SHOTS=path keeps the screenshots of all pages.
test-browser: $(VENV)/requirements-dev.stamp $(BROWSER)/requirements.stamp ## test the console with Chromium
	$(VENV)/bin/python -m pytest tests/system/test_console.py

# The pictures show a real installation, which is made for them and removed. CHROMIUM=path names another browser.
pictures: $(VENV)/requirements-dev.stamp $(BROWSER)/requirements.stamp ## take the pictures of the documents: five minutes
	$(VENV)/bin/python -m tests.browser.pictures $(or $(CHROMIUM),$(shell command -v chromium))

# Each family of clients gets a virtual environment of its own below .venv-clients, or below CLIENTS=path. rclone, restic,
# s3fs, fuse and npm are Debian's packages. LARGE=bytes sets the size of the large objects.
clients: $(VENV)/requirements-dev.stamp ## try the S3 door with the clients that people have
	$(VENV)/bin/python -m pytest -m clients tests/clients

# COMPOSE="docker compose" names another command than docker-compose. BUILD_OPTIONS go to docker build.
test-containers: $(VENV)/requirements-dev.stamp ## test image, compose files and nginx, with a Docker engine
	$(VENV)/bin/python -m pytest -m containers tests/containers

# PARTS="speed workers memory" chooses parts. BESIDE="swift=URL webdav=URL" names servers to compare with. BASE_URL
# names a running OCC Storage to measure. JSON=path writes every figure to that file. OPTIONS=--help lists more.
bench: $(VENV)/requirements.stamp ## measure speed, workers and memory: a quarter of an hour
	$(VENV)/bin/python -m benchmarks.service $(PARTS:%=--part %) $(BESIDE:%=--beside %) $(JSON:%=--json %) $(OPTIONS)

bench-sketches: $(VENV)/requirements.stamp ## measure how good and how fast the sketches are: twenty minutes
	$(VENV)/bin/python -m benchmarks.sketches

# FILES=10000 makes fewer than a million files, of ten chunks each. PLANS=path also writes PostgreSQL's plans to that
# file.
bench-growth: $(VENV)/requirements.stamp ## measure what takes longer with ten million chunks: a quarter of an hour
	$(VENV)/bin/python -m benchmarks.growth $(FILES:%=--files %) $(PLANS:%=--plans %)

# CHUNKS=1000000 lists more than 20,000 chunks. FOLDER=path names a folder on the disk to measure.
bench-volumes: $(VENV)/requirements.stamp ## compare volumes of files with volumes of packs: a minute
	$(VENV)/bin/python -m benchmarks.volumes $(CHUNKS:%=--chunks %) $(FOLDER:%=--folder %)

# requirements.txt and requirements-dev.txt have a hash of every file that pip may download, for Python 3.11 and later.
# Versions in these files stay, unless UPGRADE="--upgrade" or UPGRADE="--upgrade-package NAME" asks for newer ones.
LOCK = $(VENV)/tools/bin/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-annotate \
	--custom-compile-command "make lock" $(UPGRADE)
lock: $(VENV)/tools.stamp ## pin and hash what requirements.in and requirements-dev.in need
	$(LOCK) requirements.in -o requirements.txt
	$(LOCK) --constraint requirements.txt requirements-dev.in -o requirements-dev.txt

sbom: $(VENV)/tools.stamp ## write the list of all packages that run (CycloneDX) to sbom.json
	PYTHONWARNINGS=ignore $(VENV)/tools/bin/cyclonedx-py requirements --pyproject pyproject.toml --output-reproducible --of JSON \
		-o sbom.json requirements.txt

clean: ## remove the installed packages and all caches; stored files stay
	rm -rf $(VENV) $(FUZZ) $(BROWSER) .coverage .pytest_cache .mypy_cache .ruff_cache .hypothesis .schemathesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=...")'
	@echo "preparing $(VENV) (the first time only)"
	@$(PYTHON) -m venv $(VENV)

$(VENV)/requirements.stamp: requirements.txt | $(VENV)/bin/python
	@echo "installing packages (the first time only)"
	@$(VENV)/bin/python -m pip install --disable-pip-version-check --quiet --require-hashes -r requirements.txt
	@touch $@

$(VENV)/requirements-dev.stamp: requirements-dev.txt requirements.txt | $(VENV)/bin/python
	@echo "installing packages for tests (the first time only)"
	@$(VENV)/bin/python -m pip install --disable-pip-version-check --quiet --require-hashes -r requirements-dev.txt
	@touch $@ $(VENV)/requirements.stamp

$(BROWSER)/requirements.stamp: tests/browser/requirements.txt | $(VENV)/bin/python
	@echo "installing Playwright (the first time only)"
	@$(PYTHON) -m venv $(BROWSER)
	@$(BROWSER)/bin/python -m pip install --disable-pip-version-check --quiet -r tests/browser/requirements.txt
	@touch $@

$(FUZZ)/requirements.stamp: tests/fuzz/requirements.txt | $(VENV)/bin/python
	@echo "installing schemathesis (the first time only)"
	@$(PYTHON) -m venv $(FUZZ)
	@$(FUZZ)/bin/python -m pip install --disable-pip-version-check --quiet -r tests/fuzz/requirements.txt
	@touch $@

# uv and cyclonedx-bom have many dependencies, so they have a virtual environment of their own.
$(VENV)/tools.stamp: | $(VENV)/bin/python
	@$(PYTHON) -m venv $(VENV)/tools
	@$(VENV)/tools/bin/python -m pip install --disable-pip-version-check --quiet uv==0.13.9 cyclonedx-bom==7.5.0
	@touch $@
