"""The JSON documents of answers, as serializers: the schema makes components of them, and nothing else uses them.

``operating`` has the documents about keys, acts and nodes, and ``status`` has the document of ``/status``.
``storage.api.documents`` makes the documents. A test compares the documents with these serializers.
"""

from __future__ import annotations

from typing import Any

from drf_spectacular.utils import PolymorphicProxySerializer
from rest_framework import serializers

from storage.api.schema.fields import HASH
from storage.models import Content, Job, Scope

Answer = serializers.Serializer[Any]


class HashField(serializers.RegexField):
    """A SHA-256 in lower-case hex."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(HASH["pattern"], **kwargs)


class CountField(serializers.IntegerField):
    """A number of things."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(min_value=0, **kwargs)


class NodesField(serializers.ListField):
    """Ids of nodes."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(child=serializers.CharField(), **kwargs)


class DistributionField(serializers.DictField):
    """Chunk hash → the ids of the nodes that hold the chunk."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(child=NodesField(), **kwargs)


class MatrixField(serializers.ListField):
    """A figure for each pair of nodes."""

    def __init__(self, *, allow_null: bool = False, **kwargs: Any) -> None:
        row = serializers.ListField(child=serializers.FloatField(allow_null=allow_null))
        super().__init__(child=row, **kwargs)


class Root(Answer):
    health = serializers.URLField()
    status = serializers.URLField()
    upload = serializers.URLField()
    files = serializers.URLField()
    schema = serializers.URLField()
    docs = serializers.URLField()


class Trouble(Answer):
    name = serializers.CharField(help_text="the part that is in trouble, such as a node")
    failing = serializers.BooleanField(help_text="whether requests are refused because of it")
    text = serializers.CharField(help_text="what is wrong, and what to do")
    since = serializers.DateTimeField(allow_null=True, help_text="since when; null for some seconds")


class Health(Answer):
    status = serializers.ChoiceField(choices=["healthy", "degraded", "unhealthy"])
    nodes = CountField(help_text="active nodes whose volumes answer")
    ready = serializers.BooleanField(help_text="whether uploads and downloads can be served")
    degraded = serializers.ListField(child=serializers.CharField(), required=False, help_text="what is in trouble")
    failing = serializers.DictField(
        child=serializers.CharField(), required=False, help_text="part that fails → what to do"
    )
    troubles = Trouble(many=True, required=False, help_text="both in one list")


class Live(Answer):
    status = serializers.ChoiceField(choices=["alive"])


class Version(Answer):
    version = serializers.CharField()


class Used(Answer):
    files = CountField()
    bytes = CountField()


class Quota(Answer):
    files = CountField(allow_null=True, help_text="null is no limit")
    bytes = CountField(allow_null=True, help_text="null is no limit")


class Account(Answer):
    owner = serializers.CharField()
    scopes = serializers.ListField(child=serializers.ChoiceField(choices=Scope.values))
    used = Used()
    quota = Quota()


# -- files -------------------------------------------------------------------


class Uploaded(Answer):
    success = serializers.BooleanField()
    file_hash = HashField()
    file_name = serializers.CharField()
    file_size = CountField()
    chunks = CountField()
    replication_factor = CountField()
    distribution = DistributionField(required=False, help_text="chunk hash → the nodes that hold the chunk")
    deduplicated = serializers.BooleanField(help_text="whether you have had the same bytes before")


class UploadAccepted(Answer):
    success = serializers.BooleanField()
    file_hash = HashField()
    file_name = serializers.CharField()
    file_size = CountField()
    job = serializers.UUIDField()


class FileEntry(Answer):
    file_hash = HashField()
    file_name = serializers.CharField()
    file_size = CountField()
    chunks = CountField()
    retrievable = serializers.BooleanField()
    min_replication = CountField()
    avg_replication = serializers.FloatField()
    max_replication = CountField()
    replication_factor = CountField()
    state = serializers.ChoiceField(choices=Content.State.values)
    health_as_of = serializers.DateTimeField(allow_null=True)
    health_exact = serializers.BooleanField()
    created_at = serializers.DateTimeField()


class NamedFile(FileEntry):
    names = serializers.ListField(child=serializers.CharField(), help_text="all names of these bytes, the newest first")


class Files(Answer):
    total_files = CountField()
    folders = serializers.ListField(
        child=serializers.CharField(), required=False, help_text="with `delimiter`: the folders in this folder"
    )
    files = FileEntry(many=True)
    next = serializers.URLField(allow_null=True, help_text="the address of the next page")


class ObjectEntry(FileEntry):
    file_hash = HashField(allow_null=True, help_text="null for an object of several parts")
    etag = serializers.CharField()
    content_type = serializers.CharField()
    parts = CountField(help_text="the parts that it was uploaded in")


class Objects(Answer):
    total_files = CountField()
    folders = serializers.ListField(
        child=serializers.CharField(), required=False, help_text="with `delimiter`: the folders in this folder"
    )
    files = ObjectEntry(many=True)
    next = serializers.URLField(allow_null=True, help_text="the address of the next page")


FILES_OR_OBJECTS = PolymorphicProxySerializer("FilesOrObjects", [Files, Objects], resource_type_field_name=None)


class BucketQuota(Answer):
    objects = CountField(allow_null=True, help_text="null is no limit but your own")
    bytes = CountField(allow_null=True, help_text="null is no limit but your own")


class Bucket(Answer):
    name = serializers.CharField()
    created_at = serializers.DateTimeField()
    objects = CountField()
    bytes = CountField(help_text="of all objects, and of the parts of unfinished multipart uploads")
    quota = BucketQuota()
    replication_factor = CountField(help_text="the copies of a new object")


class Buckets(Answer):
    buckets = Bucket(many=True)
    next = serializers.URLField(allow_null=True, help_text="the address of the next page")


class ShareLink(Answer):
    id = serializers.UUIDField()
    url = serializers.URLField()
    file_name = serializers.CharField()
    created_at = serializers.DateTimeField()
    expires_at = serializers.DateTimeField()


class ShareLinks(Answer):
    links = ShareLink(many=True)


class ChunkCopies(Answer):
    index = CountField()
    hash = HashField()
    size = CountField()
    replicas = CountField()
    nodes = NodesField()


class Replication(Answer):
    min = CountField()
    avg = serializers.FloatField()
    max = CountField()


class Verification(Answer):
    file_hash = HashField()
    file_name = serializers.CharField()
    retrievable = serializers.BooleanField()
    missing_chunks = serializers.ListField(child=HashField())
    replication = Replication()
    replication_factor = CountField()
    chunks = ChunkCopies(many=True)


class Candidate(Answer):
    node_id = serializers.CharField()
    probability = serializers.FloatField(min_value=0, max_value=1)
    register = CountField()
    online = serializers.BooleanField()


class Route(Answer):
    chunk_hash = HashField()
    candidates = Candidate(many=True)


class Rebalanced(Answer):
    success = serializers.BooleanField()
    file_hash = HashField()
    file_name = serializers.CharField()
    replication_factor = CountField()
    new_distribution = DistributionField(required=False, help_text="chunk hash → the nodes that hold the chunk")


class RebalanceAccepted(Answer):
    success = serializers.BooleanField()
    file_hash = HashField()
    file_name = serializers.CharField()
    replication_factor = CountField()
    job = serializers.UUIDField()


class Progress(Answer):
    done = CountField()
    total = CountField()


class JobError(Answer):
    title = serializers.CharField(required=False)
    detail = serializers.CharField(required=False)


class JobEntry(Answer):
    id = serializers.UUIDField()
    kind = serializers.ChoiceField(choices=Job.Kind.values)
    subject = serializers.CharField(allow_null=True, help_text="what is maintained; null for an upload")
    file_hash = HashField(allow_null=True)
    state = serializers.ChoiceField(choices=Job.State.values)
    waiting_for = serializers.ChoiceField(choices=Job.Lack.values, allow_null=True)
    progress = Progress()
    size = CountField(help_text="bytes of work; 0 if it has no size")
    attempts = CountField()
    error = JobError(allow_null=True)
    result = serializers.DictField(allow_null=True)
    created_at = serializers.DateTimeField()
    started_at = serializers.DateTimeField(allow_null=True)
    finished_at = serializers.DateTimeField(allow_null=True)


class ListedJob(JobEntry):
    file_name = serializers.CharField(allow_null=True, help_text="null if the job is about no file of yours")


class Jobs(Answer):
    jobs = ListedJob(many=True)
    next = serializers.URLField(allow_null=True, help_text="the address of the next page")


class OwnLink(ShareLink):
    file_hash = HashField()


class OwnLinks(Answer):
    links = OwnLink(many=True)
    next = serializers.URLField(allow_null=True, help_text="the address of the next page")
