"""Schemathesis sends requests that fit the schema, or nearly fit it: each answer of the service is one that the schema
describes.

``make fuzz`` makes the virtual environment of schemathesis and runs these tests. FUZZ_MINUTES makes the tests longer.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable

import pytest

from tests.support.system import PROJECT, System

pytestmark = pytest.mark.fuzz

COMMAND = PROJECT / ".venv-schemathesis" / "bin" / "schemathesis"
CONFIGURATION = PROJECT / "tests" / "fuzz" / "schemathesis.toml"
EXAMPLES = 5  # The largest number of requests that are made up for an operation, in each phase.
SEED = 1  # The short run makes up the same requests each time; the long run makes up new ones.
LIMIT = 600  # A run may take this many seconds in addition to FUZZ_MINUTES.


def key_of(system: System) -> tuple[str, str]:
    """Make a key with all scopes. Return the id and the secret of the key."""
    scopes = [argument for scope in ("read", "write", "delete", "admin") for argument in ("--scope", scope)]
    output = subprocess.run(
        [sys.executable, "manage.py", "keys", "create", "ann", *scopes],
        cwd=PROJECT,
        env=system.environment,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    found = dict(re.findall(r"^(key|secret) +(\S+)$", output, re.MULTILINE))
    return found["key"], found["secret"]


@pytest.mark.parametrize("keys", [False, True], ids=["keys off", "keys on"])
def test_every_answer_is_as_the_schema_says(make_system: Callable[..., System], keys: bool) -> None:
    system = make_system(AUTH_REQUIRED=str(keys).lower())
    system.start()
    minutes = os.environ.get("FUZZ_MINUTES")
    short = ["--max-examples", str(EXAMPLES), "--seed", str(SEED)]
    length = ["--max-time", str(int(float(minutes) * 60))] if minutes else short
    environment = {**os.environ, "FUZZ_BASE_URL": system.base_url}
    arguments = ["--checks", "all", "--continue-on-failure", *length]
    if keys:
        environment["FUZZ_KEY"], environment["FUZZ_SECRET"] = key = key_of(system)
        arguments += ["--auth", ":".join(key)]
    done = subprocess.run(
        [COMMAND, "--no-color", "--config-file", CONFIGURATION, "run", f"{system.base_url}/schema", *arguments],
        cwd=PROJECT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=LIMIT + 60 * float(minutes or 0),
    )
    print(done.stdout[-3000:])
    assert done.returncode == 0, done.stdout + done.stderr
    answered = (system.storage_dir / "logs" / "api.log").read_text()
    assert '"code": 500' not in answered
    system.stop()
