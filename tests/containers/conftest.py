"""Fixtures of ``make test-containers``, which needs a Docker engine and docker-compose.

The variable BUILD_OPTIONS holds options for ``docker build``.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from tests.containers.engine import IMAGE, Stack, docker


@pytest.fixture(scope="session")
def image() -> str:
    """The name of the image, which is built from this tree first."""
    docker("build", *shlex.split(os.environ.get("BUILD_OPTIONS", "")), "-t", IMAGE, ".")
    return IMAGE


@pytest.fixture(scope="module")
def make_stack(image: str) -> Iterator[Callable[..., Stack]]:
    """Make compose projects. After the module's last test the projects are removed together with their volumes."""
    made: list[Stack] = []

    def make(files: Sequence[str] = (), env_file: Path | None = None, **environment: str) -> Stack:
        made.append(Stack(f"occ-test-{os.getpid()}-{len(made)}", files, env_file, **environment))
        return made[-1]

    yield make
    for stack in made:
        stack.down()
    for stack in made:
        label = f"label=com.docker.compose.project={stack.name}"
        assert not stack.all_containers()
        assert not docker("volume", "ls", "-q", "--filter", label)
        assert not docker("network", "ls", "-q", "--filter", label)


@pytest.fixture(scope="module")
def stack(make_stack: Callable[..., Stack]) -> Stack:
    """A running stack of one container per service, as ``docker-compose up -d`` makes it."""
    found = make_stack()
    found.up()
    return found
