"""The documents about keys, acts, nodes and figures over time, as serializers for the schema."""

from __future__ import annotations

from rest_framework import serializers

from storage.api.schema.answers import Answer, CountField, HashField, JobEntry
from storage.models import Activity as Done
from storage.models import Job, Scope


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
    on_disk_bytes = CountField(allow_null=True, help_text="what its copies took at the last census")
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
