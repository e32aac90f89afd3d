"""No request makes an internal error, and every refusal is a document of S3."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote
from xml.etree import ElementTree

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from storage.s3.errors import STATUS
from storage.s3.router import OF_BUCKETS, OF_OBJECTS
from tests.support.s3 import ask

METHODS = ["GET", "HEAD", "PUT", "POST", "DELETE", "PATCH", "OPTIONS"]
NAMES = [
    *sorted(OF_BUCKETS | OF_OBJECTS),
    "prefix", "delimiter", "marker", "max-keys", "list-type", "encoding-type", "continuation-token", "start-after",
    "partNumber", "versionId", "key-marker", "upload-id-marker", "max-uploads", "max-parts", "part-number-marker",
    "response-expires", "X-Amz-Algorithm", "Signature",
]  # fmt: skip
FIELDS = [
    "Range", "If-Match", "If-None-Match", "If-Modified-Since", "Content-MD5", "Content-Type", "Expires",
    "x-amz-content-sha256", "x-amz-decoded-content-length", "x-amz-trailer", "x-amz-copy-source",
    "x-amz-copy-source-range", "x-amz-metadata-directive", "x-amz-tagging", "x-amz-storage-class", "x-amz-acl",
    "x-amz-checksum-crc32", "x-amz-checksum-algorithm", "x-amz-checksum-type", "x-amz-meta-a", "x-amz-date",
    "x-amz-object-attributes", "x-amz-max-parts", "x-amz-mp-object-size", "x-amz-sdk-checksum-algorithm", "Host",
]  # fmt: skip
VALUES = [
    "", "0", "1", "-1", "2", "10001", "x", "*", '"x"', "bytes=0-0", "bytes=9-2", "CRC32", "COMPOSITE", "REPLACE",
    "COPY", "url", "/", "bucket/key", "/bucket/key?versionId=null", "%00", "a=1&a=2", "AAAAAA==", "UNSIGNED-PAYLOAD",
    "null", "a\0b",
    "STREAMING-AWS4-HMAC-SHA256-PAYLOAD", "STREAMING-UNSIGNED-PAYLOAD-TRAILER", "x-amz-checksum-crc32", "Fri",
    "\xff\xe9",
    "multipart/form-data; boundary=BB",
    "ETag,Checksum,ObjectParts", "0" * 32, "9" * 400, "Thu, 01 Jan 2026 00:00:00 GMT", "localhost",
]  # fmt: skip
BODIES = [
    b"", b"bytes", b"<", b"<Delete/>", b"<Delete><Object><Key>a</Key><ETag>x</ETag></Object></Delete>", b"\xff" * 10,
    b"<CompleteMultipartUpload><Part><PartNumber>1</PartNumber><ETag>x</ETag></Part></CompleteMultipartUpload>",
    b"<Tagging><TagSet><Tag><Key>a</Key><Value>&#x1F600;</Value></Tag></TagSet></Tagging>", b"0\r\n\r\n",
    b"<AccessControlPolicy><AccessControlList/></AccessControlPolicy>", b"5\r\nbytes\r\n0\r\n\r\n",
    b'--BB\r\nContent-Disposition: form-data; name="key"\r\n\r\na\xff\r\n--BB--\r\n',
    b'--BB\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\na\r\n--BB--\r\n',
]  # fmt: skip

values = st.one_of(st.sampled_from(VALUES), st.text(st.characters(min_codepoint=32, max_codepoint=255), max_size=9))
query = st.dictionaries(st.sampled_from(NAMES), values, max_size=3)
PATHS = ["/", "/bucket", "/bucket/", "/bucket/key", "/bucket/none", "/none", "/Bad_/x", "/bucket/%00", "/%00/a", "/%ff"]


def test_no_request_makes_an_internal_error(s3: Any) -> None:
    s3.create_bucket(Bucket="bucket")
    s3.put_object(Bucket="bucket", Key="key", Body=b"bytes")

    @settings(max_examples=400, deadline=None, suppress_health_check=list(HealthCheck))
    @given(
        method=st.sampled_from(METHODS),
        path=st.sampled_from(PATHS),
        parameters=query,
        fields=st.dictionaries(st.sampled_from(FIELDS), values, max_size=3),
        body=st.sampled_from(BODIES),
    )
    def check(method: str, path: str, parameters: dict[str, str], fields: dict[str, str], body: bytes) -> None:
        text = "&".join(f"{name}={quote(value, encoding='latin-1')}" for name, value in parameters.items())
        status, headers, answer = ask(method, f"{path}?{text}", body, fields)
        assert status != 500, answer
        if status >= 400 and answer:
            document = ElementTree.fromstring(answer)
            assert (document.tag, status) == ("Error", STATUS[document.findtext("Code") or ""]), answer
            assert document.findtext("RequestId") == headers["x-amz-request-id"]

    check()
