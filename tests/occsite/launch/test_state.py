"""The URL at which a client on this machine finds the service, for each form of HOST."""

from __future__ import annotations

import pytest

from occsite.launch.state import local_url
from storage.conf import Configuration


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("::1", "http://[::1]:5000"),
        ("[::1]", "http://[::1]:5000"),
        ("[::]", "http://[::1]:5000"),
        ("0.0.0.0", "http://127.0.0.1:5000"),
        ("", "http://127.0.0.1:5000"),
        ("localhost", "http://localhost:5000"),
    ],
)
def test_a_host_is_taken_as_people_write_it(host: str, url: str) -> None:
    configuration = Configuration.from_environment({"HOST": host})
    assert local_url(configuration.host, configuration.port) == url
