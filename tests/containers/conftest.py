"""What ``make test-containers`` needs: a Docker engine and docker-compose. BUILD_OPTIONS are passed to the build."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from tests.containers.engine import IMAGE, Stack, docker


@pytest.fixture(scope="session")
def image() -> str:
    """The image, built from this tree."""
    docker("build", *shlex.split(os.environ.get("BUILD_OPTIONS", "")), "-t", IMAGE, ".")
    return IMAGE


@pytest.fixture(scope="module")
def make_stack(image: str) -> Iterator[Callable[..., Stack]]:
    """Makes compose projects; with the module's last test they go, volumes included, and must leave nothing."""
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
