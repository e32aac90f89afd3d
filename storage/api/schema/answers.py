"""The JSON documents of answers, as serializers: the schema makes components of them, and nothing else uses them.

``storage.api.documents`` makes the documents. A test compares the documents with these serializers.
"""

from __future__ import annotations

from typing import Any

from drf_spectacular.utils import PolymorphicProxySerializer
from rest_framework import serializers

from storage.api.schema.fields import HASH
from storage.models import Activity as Done
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
    files = ObjectEntry(many=True)
    next = serializers.URLField(allow_null=True, help_text="the address of the next page")


FILES_OR_OBJECTS = PolymorphicProxySerializer("FilesOrObjects", [Files, Objects], resource_type_field_name=None)


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


class Jobs(Answer):
    jobs = JobEntry(many=True)
    next = serializers.URLField(allow_null=True, help_text="the address of the next page")


class OwnLink(ShareLink):
    file_hash = HashField()


class OwnLinks(Answer):
    links = OwnLink(many=True)
    next = serializers.URLField(allow_null=True, help_text="the address of the next page")


# -- operators ----------------------------------------------------------------


class Key(Answer):
    id = serializers.CharField()
    owner = serializers.CharField()
    name = serializers.CharField(allow_blank=True)
    scopes = serializers.ListField(child=serializers.ChoiceField(choices=Scope.values))
    bucket = serializers.CharField(allow_null=True, help_text="the only bucket that the key opens; null for no limit")
    prefix = serializers.CharField(allow_null=True, help_text="the beginning of the objects that it opens there")
    state = serializers.ChoiceField(choices=["good", "expired", "revoked"])
    created_at = serializers.DateTimeField()
    expires_at = serializers.DateTimeField(allow_null=True)
    last_used_at = serializers.DateTimeField(allow_null=True)
    revoked_at = serializers.DateTimeField(allow_null=True)


class Keys(Answer):
    keys = Key(many=True)


class NewKey(Key):
    secret = serializers.CharField(help_text="it is shown only now")


class Act(Answer):
    at = serializers.DateTimeField()
    actor = serializers.CharField(allow_blank=True, help_text="the user who did it; empty at the command line")
    means = serializers.CharField(allow_blank=True, help_text="the key, or the door")
    action = serializers.ChoiceField(choices=Done.Action.values)
    subject = serializers.CharField(help_text="a file, a key, a node, a job")
    file_hash = HashField(allow_null=True)
    owner = serializers.CharField(allow_null=True, help_text="whose thing it is; null for the cluster")
    detail = serializers.CharField(allow_blank=True)


class Activity(Answer):
    activity = Act(many=True)
    next = serializers.URLField(allow_null=True, help_text="the address of the next page")


class Findings(Answer):
    corrupt = CountField(required=False)
    unreadable = CountField(required=False)
    short = CountField(required=False)
    lost = CountField(required=False)
    surplus = CountField(required=False)
    orphans = CountField(required=False)
    leftovers = CountField(required=False)


class LastAudit(Answer):
    ended_at = serializers.DateTimeField()
    state = serializers.ChoiceField(choices=[state.value for state in Job.TERMINAL])
    found = Findings(help_text="empty if it did not succeed")


class LastListing(Answer):
    taken_at = serializers.DateTimeField()
    listed = serializers.BooleanField(help_text="false if the node did not answer")


class Node(Answer):
    node_id = serializers.CharField()
    state = serializers.CharField()
    since = serializers.DateTimeField(allow_null=True)
    url = serializers.CharField()
    zone = serializers.CharField(allow_null=True)
    foreign_writes = serializers.BooleanField()
    copies = CountField()
    bytes = CountField()
    disk_bytes = CountField(allow_null=True, help_text="the size of the node's file system")
    free_bytes = CountField(allow_null=True, help_text="what is free on it, to a sixteenth of the size")
    audit = LastAudit(allow_null=True)
    census = LastListing(allow_null=True)
    jobs = JobEntry(many=True, help_text="work on the node that has not ended")


class Nodes(Answer):
    nodes = Node(many=True)


class NewNode(Answer):
    node_id = serializers.CharField()
    url = serializers.CharField()
    zone = serializers.CharField(allow_null=True)


class AuditPlan(Answer):
    node_id = serializers.CharField()
    copies = CountField()
    bytes = CountField()
    short = CountField()
    lost = CountField()
    surplus = CountField()
    orphans = CountField()
    leftovers = CountField()
    seconds = CountField(help_text="how long the reading takes")


class DrainPlan(Answer):
    node_id = serializers.CharField()
    copies = CountField()
    bytes = CountField()
    to_write = CountField(help_text="bytes to write elsewhere first")
    orphans = CountField(help_text="copies that the database does not know: they are only removed")


class RetirePlan(Answer):
    node_id = serializers.CharField()
    unreadable = CountField(help_text="contents that cannot be read now, and would be lost")


class Sample(Answer):
    at = serializers.DateTimeField()
    files = CountField(allow_null=True, help_text="uploads that were stored")
    bytes = CountField(allow_null=True, help_text="bytes of these uploads")
    reads = CountField(allow_null=True, help_text="chunks that were read for downloads")
    later_looks = CountField(allow_null=True, help_text="of these, chunks that the first node did not have")
    queued = CountField(help_text="uploads that wait for a worker")
    waiting = CountField(help_text="maintenance jobs that wait")
    stored = CountField(help_text="bytes on all nodes")
    disks = CountField(help_text="bytes of all their file systems")
    free = CountField(help_text="free bytes on these, to a sixteenth of each")
    load = serializers.FloatField(allow_null=True, help_text="chunks per register of a sketch")
    false_positives = serializers.FloatField(allow_null=True, help_text="share of looks that a sketch does not spare")


class History(Answer):
    samples = Sample(many=True)
