"""Clients of S3 that others have written, with the configuration of docs/s3.md, use a running service."""

from __future__ import annotations

import filecmp
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.clients.conftest import Service, equal
from tests.clients.families import PROGRAMS, environment_of, installed, modules_of_node

pytestmark = pytest.mark.clients
Folder = Callable[[int], Path]


@pytest.mark.parametrize(
    ("family", "program"),
    [
        ("boto", "boto3_program"),
        ("minio", "minio_program"),
        ("s3fs", "pandas_program"),
        ("obstore", "obstore_program"),
        ("duckdb", "duckdb_program"),
    ],
)
def test_libraries_for_python(service: Service, family: str, program: str) -> None:
    python = environment_of(family) / "python"
    bucket = {"S3_BUCKET": service.bucket()} if family in MADE else {}
    told = service.run(python, PROGRAMS / f"{program}.py", environment=bucket)
    assert told.endswith("checks\n"), told


MADE = ("obstore", "duckdb")  # These libraries cannot make buckets.


def test_the_sdk_for_javascript(service: Service) -> None:
    modules = modules_of_node()
    program = modules / "sdk_program.mjs"
    program.write_bytes((PROGRAMS / "sdk_program.mjs").read_bytes())
    assert service.run("node", program, cwd=modules).endswith("checks\n")


@pytest.mark.parametrize("family", ["awscli", "awscli-old"])
def test_aws_cli(service: Service, folder: Folder, large: Path, tmp_path: Path, family: str) -> None:
    aws, files, bucket = environment_of(family) / "aws", folder(20), service.bucket()
    base: list[str | Path] = [aws, "--endpoint-url", service.endpoint]
    service.run(*base, "s3", "cp", large, f"s3://{bucket}/large", "--no-progress")
    service.run(*base, "s3", "sync", files, f"s3://{bucket}/files", "--no-progress")
    assert service.run(*base, "s3", "sync", files, f"s3://{bucket}/files", "--no-progress") == ""
    service.run(*base, "s3", "cp", f"s3://{bucket}/large", f"s3://{bucket}/copy", "--no-progress")
    service.run(*base, "s3", "sync", f"s3://{bucket}", tmp_path / "back", "--no-progress")
    assert equal(files, tmp_path / "back/files")
    assert filecmp.cmp(large, tmp_path / "back/large", shallow=False)
    assert filecmp.cmp(large, tmp_path / "back/copy", shallow=False)
    address = service.run(*base, "s3", "presign", f"s3://{bucket}/files/a+b").strip()
    assert urllib.request.urlopen(address).read() == b"a+b"
    assert "PRE files/" in service.run(*base, "s3", "ls", f"s3://{bucket}")
    service.run(*base, "s3", "rb", "--force", f"s3://{bucket}")


def test_s3cmd(service: Service, folder: Folder, large: Path, tmp_path: Path) -> None:
    files, bucket = folder(20), service.bucket()
    base: list[str | Path] = [environment_of("s3cmd") / "s3cmd", "-c", "/dev/null", "--no-ssl", "--host", service.host]
    base += ["--host-bucket", service.host, "--access_key", service.key, "--secret_key", service.secret]
    base += ["--region", "occ", "--no-progress"]
    service.run(*base, "put", large, f"s3://{bucket}/large")
    service.run(*base, "sync", f"{files}/", f"s3://{bucket}/files/")
    service.run(*base, "cp", f"s3://{bucket}/large", f"s3://{bucket}/copy")
    service.run(*base, "get", f"s3://{bucket}/copy", tmp_path / "copy")
    assert filecmp.cmp(large, tmp_path / "copy", shallow=False)
    (tmp_path / "back").mkdir()
    service.run(*base, "sync", f"s3://{bucket}/files/", f"{tmp_path}/back/")
    assert equal(files, tmp_path / "back")
    assert f"DIR  s3://{bucket}/files/" in service.run(*base, "ls", f"s3://{bucket}")
    service.run(*base, "del", "--recursive", "--force", f"s3://{bucket}")
    service.run(*base, "rb", f"s3://{bucket}")


def test_s5cmd(service: Service, folder: Folder, large: Path, tmp_path: Path) -> None:
    files, bucket = folder(200), service.bucket()
    base: list[str | Path] = [environment_of("s5cmd") / "s5cmd", "--endpoint-url", service.endpoint]
    service.run(*base, "cp", large, f"s3://{bucket}/large")
    service.run(*base, "cp", f"{files}/", f"s3://{bucket}/files/")
    service.run(*base, "cp", f"s3://{bucket}/large", f"s3://{bucket}/copy")
    service.run(*base, "cp", f"s3://{bucket}/files/*", f"{tmp_path}/back/")
    assert equal(files, tmp_path / "back")
    service.run(*base, "cp", f"s3://{bucket}/copy", tmp_path / "copy")
    assert filecmp.cmp(large, tmp_path / "copy", shallow=False)
    service.run(*base, "rm", f"s3://{bucket}/*")
    service.run(*base, "rb", f"s3://{bucket}")


def test_curl_sends_forms(service: Service, large: Path) -> None:
    bucket, client, curl = service.bucket(), service.client(), installed("curl", "curl")
    sizes = [["content-length-range", 0, large.stat().st_size]]
    form = client.generate_presigned_post(bucket, "in/${filename}", Conditions=sizes)
    fields = [word for name, value in form["fields"].items() for word in ("--form-string", f"{name}={value}")]
    base: list[str | Path] = [curl, "--silent", "--write-out", "%{http_code}", *fields]
    assert service.run(*base, "-F", f"file=@{large};filename=a b+ü", form["url"]) == "204"
    assert b"".join(client.get_object(Bucket=bucket, Key="in/a b+ü")["Body"]) == large.read_bytes()
    with large.open("ab") as longer:
        longer.write(b"x")
    assert "EntityTooLarge" in service.run(*base, "-F", f"file=@{large};filename=longer", form["url"])
    assert client.list_objects_v2(Bucket=bucket)["KeyCount"] == 1


def test_rclone(service: Service, folder: Folder, large: Path, tmp_path: Path) -> None:
    files, rclone = folder(50), installed("rclone", "rclone")
    (files / "large").write_bytes(large.read_bytes())
    settings = service.for_rclone(tmp_path)
    bucket = f"rclone-{tmp_path.name.lower().replace('_', '-')}"
    service.run(rclone, "mkdir", f"occ:{bucket}", environment=settings)
    service.run(rclone, "sync", files, f"occ:{bucket}/files", environment=settings)
    service.run(rclone, "check", "--download", files, f"occ:{bucket}/files", environment=settings)
    service.run(rclone, "check", files, f"occ:{bucket}/files", environment=settings)
    (files / "a b").unlink()
    (files / "new").write_text("new")
    service.run(rclone, "sync", files, f"occ:{bucket}/files", environment=settings)
    service.run(rclone, "copy", f"occ:{bucket}/files", f"occ:{bucket}/copy", environment=settings)
    service.run(rclone, "sync", f"occ:{bucket}/copy", tmp_path / "back", environment=settings)
    assert equal(files, tmp_path / "back")
    service.run(rclone, "purge", f"occ:{bucket}", environment=settings)


def test_restic(service: Service, folder: Folder, large: Path, tmp_path: Path) -> None:
    files, restic = folder(200), installed("restic", "restic")
    (files / "large").write_bytes(large.read_bytes())
    settings = {
        "RESTIC_REPOSITORY": f"s3:{service.endpoint}/{service.bucket()}/backups",
        "RESTIC_PASSWORD": "password of the repository",
        "RESTIC_CACHE_DIR": str(tmp_path / "cache"),
    }
    service.run(restic, "init", environment=settings)
    service.run(restic, "backup", files, environment=settings)
    (files / "new").write_text("new")
    service.run(restic, "backup", files, environment=settings)
    service.run(restic, "check", "--read-data", environment=settings)
    service.run(restic, "restore", "latest", "--target", tmp_path / "back", environment=settings)
    assert equal(files, tmp_path / "back" / files.relative_to("/"))
    service.run(restic, "forget", "--keep-last", "1", "--prune", environment=settings)
    service.run(restic, "check", environment=settings)
