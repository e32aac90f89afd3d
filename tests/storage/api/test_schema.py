"""The schema of the API: it is complete, and its documents are those that clients get.

The page that shows the schema has no inline code.
"""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import pytest
import yaml
from django.core.files.uploadedfile import SimpleUploadedFile
from django.core.management import call_command
from django.test import Client
from django.urls import URLPattern
from drf_spectacular.generators import EndpointEnumerator, SchemaGenerator
from jsonschema import Draft202012Validator

import occsite.urls
from storage.admin.login import login
from storage.api import urls
from storage.api.pages import renderer
from storage.api.schema import problems
from storage.api.wsgi import slashes
from tests.storage.api.test_error_codes import documented
from tests.support.api import Send, WholeClient, assert_problem, workers
from tests.support.cluster import ClusterUnderTest
from tests.support.keys import bearer, keys_on
from tests.support.objects import make_bucket, put

__all__ = ["keys_on", "workers"]

METHODS = {"get", "put", "post", "patch", "delete"}
NOT_OF_THE_API = (
    slashes.without_slash,
    slashes.with_slash,
    renderer.icon,
    renderer.robots,
    renderer.security_contact,
    login,
    occsite.urls.root,  # This address is tested as the view of the API at the same path.
)


def schema() -> Any:
    document = Client().get("/schema").json()
    assert document["openapi"].startswith("3.")
    return document


def closed(part: Any) -> Any:
    """The schema in which no object has members that are not described."""
    if isinstance(part, dict):
        part = {name: closed(value) for name, value in part.items()}
        if "properties" in part:
            part.setdefault("additionalProperties", False)
    return [closed(value) for value in part] if isinstance(part, list) else part


def assert_described(document: Any, path: str, response: Any, method: str = "get") -> None:
    """Check that an answer has a documented status, type and header fields, and only documented members."""
    reply = document["paths"][path][method]["responses"][str(response.status_code)]
    for name, field in reply.get("headers", {}).items():
        assert name in response.headers or not field.get("required"), name
    media_type = response.headers["Content-Type"].partition(";")[0]
    body = closed(deepcopy(reply["content"][media_type]["schema"]))
    whole = {**body, "components": closed(deepcopy(document["components"]))}
    Draft202012Validator(whole, format_checker=Draft202012Validator.FORMAT_CHECKER).validate(response.json())


def test_the_schema_is_made_without_a_warning(tmp_path: Any) -> None:
    call_command("spectacular", validate=True, fail_on_warn=True, file=str(tmp_path / "schema.yaml"))


def test_every_address_and_method_is_in_the_schema() -> None:
    paths = SchemaGenerator().get_schema(public=True)["paths"]
    patterns: list[Any] = [*urls.urlpatterns, *occsite.urls.urlpatterns]
    for pattern in patterns:
        path = EndpointEnumerator().get_path_from_regex(str(pattern.pattern))
        if not isinstance(pattern, URLPattern) or pattern.callback in NOT_OF_THE_API:
            continue
        view = getattr(pattern.callback, "cls", None)
        assert view is not None, f"{path} is no view of DRF: the schema cannot have it"
        if view.schema is None:
            continue  # tus and the IETF's draft describe resumable uploads themselves.
        methods = {name.lower() for name in view().allowed_methods} & METHODS
        assert methods <= paths.get(path, {}).keys(), f"{path} is not in the schema: decorate its methods with describe"


def test_every_code_is_in_the_schema() -> None:
    assert dict(problems.STATUS_OF) == documented()


def test_examples_fit_their_schemas(cluster: ClusterUnderTest) -> None:
    document = schema()
    components = closed(document["components"])
    count = 0
    for item in document["paths"].values():
        for operation in item.values():
            for reply in operation["responses"].values():
                for content in reply.get("content", {}).values():
                    for example in content.get("examples", {}).values():
                        validator = Draft202012Validator({**content["schema"], "components": components})
                        validator.validate(example["value"])
                        count += 1
    assert count > 10


def test_json_and_yaml_are_the_same_document(cluster: ClusterUnderTest) -> None:
    response = Client().get("/schema", headers={"Accept": "application/yaml"})
    assert response.headers["Content-Type"] == "application/yaml"
    assert yaml.safe_load(response.content) == schema()
    assert_problem(Client().get("/schema", headers={"Accept": "image/png"}), 406)


def test_answers_have_what_the_schema_says_and_nothing_else(workers: ClusterUnderTest, send: Send) -> None:
    document, client = schema(), Client()
    uploaded = send(b"some bytes")
    assert_described(document, "/upload", uploaded, "post")
    assert_described(document, "/upload", send(b"some bytes"), "post")
    assert_described(document, "/upload", send(b"more bytes", headers={"Prefer": "respond-async"}), "post")
    file_hash = uploaded.json()["file_hash"]
    chunk = client.get(f"/verify/{file_hash}").json()["chunks"][0]["hash"]
    for path, address in {
        "/": "/",
        "/health": "/health",
        "/status": "/status",
        "/account": "/account",
        "/files": "/files?limit=1",
        "/files/{file_hash}": f"/files/{file_hash}",
        "/files/{file_hash}/links": f"/files/{file_hash}/links",
        "/verify/{file_hash}": f"/verify/{file_hash}",
        "/route/{chunk_hash}": f"/route/{chunk}",
    }.items():
        assert_described(document, path, client.get(address))
    link = client.post(f"/files/{file_hash}/links")
    assert_described(document, "/files/{file_hash}/links", link, "post")
    rebalanced = client.post(f"/rebalance/{file_hash}", headers={"Prefer": "respond-async"})
    assert_described(document, "/rebalance/{file_hash}", rebalanced, "post")
    assert_described(document, "/rebalance/{file_hash}", client.post(f"/rebalance/{file_hash}"), "post")
    assert_described(document, "/jobs/{job_id}", client.get(f"/jobs/{rebalanced.json()['job']}"))
    assert_described(document, "/files/{file_hash}", client.get(f"/files/{'0' * 64}"))
    assert_described(document, "/files", client.get("/files?delimiter=/"))
    assert_described(document, "/files", client.get("/files?prefix=nothing"))
    put(workers, make_bucket("photos"), "2026/a", b"bytes")
    for query in ("", "&delimiter=/"):
        assert_described(document, "/files", client.get(f"/files?bucket=photos{query}"))
    assert_described(document, "/buckets", client.get("/buckets"))
    assert_described(document, "/jobs", client.get("/jobs"))
    deleted = client.delete(f"/files/{file_hash}")
    undone = client.post(deleted.headers["Undo-Location"])
    assert_described(document, "/deletions/{deletion_id}", undone, "post")
    for path, address in {
        "/download/{file_hash}": f"/download/{file_hash}",
        "/buckets/{bucket}/object": "/buckets/photos/object?key=2026/a",
    }.items():
        for headers in ({}, {"Range": "bytes=0-1"}, {"Range": "bytes=0-1,4-5"}, {"If-None-Match": "*"}):
            response = WholeClient().get(address, headers=headers)
            reply = document["paths"][path]["get"]["responses"][str(response.status_code)]
            required = {name for name, field in reply["headers"].items() if field.get("required")}
            assert required <= set(response.headers)
            response.close()


def test_the_schema_asks_for_keys_where_keys_are_asked_for(keys_on: ClusterUnderTest) -> None:
    for path in ("/schema", "/docs"):
        assert WholeClient().get(path).status_code == 200
    assert_problem(WholeClient().get("/files"), 401)
    document = schema()
    assert set(document["components"]["securitySchemes"]) == {"basic", "bearer"}
    for path, item in document["paths"].items():
        answered = WholeClient().get(path.replace("{", "").replace("}", "")).status_code
        for operation in item.values():
            assert ("security" in operation) == (answered == 401), path
    assert "`admin`" in document["paths"]["/status"]["get"]["description"]
    assert WholeClient().get("/files", headers=bearer("ann")).status_code == 200


def test_the_schema_asks_for_no_keys_while_keys_are_off(cluster: ClusterUnderTest) -> None:
    document = schema()
    assert "securitySchemes" not in document["components"]
    assert not [path for path, item in document["paths"].items() for one in item.values() if "security" in one]


def test_the_page_has_no_code_or_style_of_its_own(cluster: ClusterUnderTest) -> None:
    response = WholeClient().get("/docs")
    policy = response.headers["Content-Security-Policy"]
    assert "script-src 'self';" in policy
    assert "style-src 'self';" in policy
    page = response.content.decode()
    assert "<style" not in page
    assert "style=" not in page
    assert page.count("<script") == page.count("<script src=") == 2


@pytest.mark.parametrize("method", ["options", "head"])
def test_the_page_answers_every_method_that_it_names(cluster: ClusterUnderTest, method: str) -> None:
    assert getattr(Client(), method)("/docs").status_code == 200


def test_a_form_with_a_query_is_taken_at_its_word(workers: ClusterUnderTest, send: Send) -> None:
    """An earlier version ignored the query of a form, even if its values were not possible."""

    def post(query: str, **fields: Any) -> Any:
        return Client().post(f"/upload?{query}", {"file": SimpleUploadedFile("form.txt", b"bytes"), **fields})

    assert_problem(post("replication_factor=0"), 400, "replication_factor")
    assert_problem(post("replication_factor=0", replication_factor=1), 400, "replication_factor")
    assert_problem(post("file_name=a//b"), 400, "file_name")
    assert post("replication_factor=2").json()["replication_factor"] == 2
    assert post("replication_factor=2&file_name=query.txt", replication_factor=1).json() | {"distribution": {}} == {
        "success": True,
        "file_hash": post("").json()["file_hash"],
        "file_name": "query.txt",
        "file_size": 5,
        "chunks": 1,
        "replication_factor": 1,
        "distribution": {},
        "deduplicated": True,
    }
