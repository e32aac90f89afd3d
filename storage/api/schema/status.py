"""The document of ``/status``, as serializers for the schema."""

from __future__ import annotations

from rest_framework import serializers

from storage.api.schema.answers import Answer, CountField, MatrixField, NodesField
from storage.counters import Event


class Estimate(Answer):
    estimate = serializers.FloatField()
    lower_bound = serializers.FloatField()
    upper_bound = serializers.FloatField(allow_null=True)
    saturated = serializers.BooleanField(help_text="a sketch is too full: only the lower bound counts")


class SpectrumLine(Estimate):
    replicas = CountField()
    or_more = serializers.BooleanField()


class Network(Answer):
    total_nodes = CountField()
    union_size = CountField(allow_null=True, help_text="distinct chunks, estimated from level_counts")
    total_chunks = CountField(help_text="copies of chunks")
    total_storage_mb = serializers.FloatField()
    average_replication = serializers.FloatField()
    level_counts = serializers.ListField(
        child=CountField(), allow_null=True, help_text="registers that are occupied on exactly l nodes, l = 0, 1, …"
    )
    distinct_chunks = CountField()
    sketches = serializers.ChoiceField(choices=["trusted", "rebuilding", "unavailable"])


class NodeEntry(Answer):
    node_id = serializers.CharField()
    chunks = CountField()
    size_mb = serializers.FloatField()
    on_disk_mb = serializers.FloatField(allow_null=True, help_text="what its copies took at the last census")
    union_size = CountField(allow_null=True)
    state = serializers.CharField()
    since = serializers.DateTimeField(allow_null=True, help_text="when the node came or went last")
    zone = serializers.CharField(allow_null=True)
    disk_mb = serializers.FloatField(allow_null=True, help_text="the size of the node's file system")
    free_mb = serializers.FloatField(allow_null=True, help_text="what is free on it, to a sixteenth of the size")
    foreign_writes = serializers.BooleanField()


class Settings(Answer):
    num_nodes = CountField()
    n_prime = CountField()
    tau = CountField()
    replication_factor = CountField()
    chunk_size = CountField()


class Estimates(Answer):
    union = Estimate()
    spectrum = SpectrumLine(many=True)
    average_replication = Estimate()
    chunks_below_target = Estimate()
    as_of = serializers.DateTimeField()


class Sketch(Answer):
    n_prime = CountField()
    bytes_per_node = CountField()
    load = serializers.FloatField(allow_null=True)
    false_positive_rate = serializers.FloatField(allow_null=True)
    trusted = serializers.BooleanField()
    generation = CountField()
    as_of = serializers.DateTimeField()


class Overlap(Answer):
    nodes = NodesField()
    observed = MatrixField(allow_null=True)
    expected = MatrixField()
    z = MatrixField()
    bound = serializers.FloatField()


class CensusEntry(Answer):
    taken_at = serializers.DateTimeField()
    chunks = CountField()
    copies = CountField()
    bytes = CountField()
    on_disk_bytes = CountField(allow_null=True, help_text="what these copies take, which is less if compressed")
    short = CountField()
    lost = CountField()
    surplus = CountField()
    orphans = CountField()
    silent = NodesField()


class OnDisk(Answer):
    census = CensusEntry(allow_null=True)
    audited_since = serializers.DateTimeField(allow_null=True)


class BlastRadius(Answer):
    nodes = NodesField()
    zone = serializers.CharField(allow_null=True)
    chunks = Estimate()
    expected = serializers.FloatField()
    score = serializers.FloatField()
    bound = serializers.FloatField()
    out_of_bounds = serializers.BooleanField()


Counters = type("Counters", (Answer,), {str(event): CountField() for event in Event})


class Status(Answer):
    version = serializers.CharField()
    network = Network()
    nodes = NodeEntry(many=True)
    config = Settings()
    files_stored = CountField()
    objects_stored = CountField()
    estimates = Estimates(allow_null=True)
    sketch = Sketch()
    overlap = Overlap(allow_null=True)
    on_disk = OnDisk()
    blast_radius = BlastRadius(many=True, allow_null=True)
    counters = Counters(allow_null=True)
