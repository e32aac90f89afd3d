from __future__ import annotations

import pytest
from django.contrib.auth.models import User
from django.test import Client

from tests.support.cluster import ClusterUnderTest


@pytest.fixture
def operator(cluster: ClusterUnderTest) -> Client:
    client = Client()
    client.force_login(User.objects.create_superuser("admin", "", "secret"))
    return client
