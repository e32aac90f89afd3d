"""Buckets: make, find, list and delete them, or give them to another owner."""

from __future__ import annotations

import structlog
from django.contrib.auth.models import User
from django.db import IntegrityError, transaction

from storage.exceptions import BucketNotEmpty, BucketOwned, BucketTaken, Forbidden, NoSuchBucket
from storage.models import Bucket, Job, Multipart, Object, Part, Upload
from storage.models.dropping import drop_parts
from storage.staging import files

log = structlog.get_logger(__name__)


def create_bucket(owner: User, name: str, *, replication_factor: int | None = None) -> Bucket:
    """Make a bucket.

    Args:
        owner: the owner.
        name: a name that obeys the rules of the S3 door.
        replication_factor: the number of replicas of the bucket's objects; None for REPLICATION_FACTOR.

    Raises:
        BucketOwned: the owner has a bucket of this name.
        BucketTaken: another owner has a bucket of this name.
    """
    try:
        with transaction.atomic():
            bucket = Bucket.objects.create(owner=owner, name=name, replication_factor=replication_factor)
    except IntegrityError:
        if Bucket.objects.filter(name=name, owner=owner).exists():
            raise BucketOwned(f"the bucket {name} is yours already") from None
        raise BucketTaken(f"the bucket {name} is another owner's") from None
    log.info("bucket.created", bucket=name, owner=owner.pk)
    return bucket


def find_bucket(owner: User, name: str) -> Bucket:
    """Find the owner's bucket.

    Raises:
        NoSuchBucket: there is no bucket of this name.
        Forbidden: the bucket is another owner's. That a name is in use is no secret.
    """
    bucket = Bucket.find(name)
    if bucket is None:
        raise NoSuchBucket(f"no bucket {name}")
    if bucket.owner_id != owner.pk:
        raise Forbidden(f"the bucket {name} is another owner's")
    return bucket


def own_bucket(owner: User, name: str) -> Bucket:
    """Find the owner's bucket, for doors that tell nobody whether another owner has a bucket of the name.

    Raises:
        NoSuchBucket: the owner has no such bucket.
    """
    bucket = None if "\0" in name else Bucket.find(name)
    if bucket is None or bucket.owner_id != owner.pk:
        raise NoSuchBucket(f"no bucket {name}")
    return bucket


def list_buckets(owner: User) -> list[Bucket]:
    """The owner's buckets, by name."""
    return list(Bucket.objects.filter(owner=owner))


@transaction.atomic
def give_buckets(giver: User, receiver: User) -> int:
    """Make all buckets of one user the buckets of another user; return their number."""
    buckets = list(Bucket.objects.filter(owner=giver).select_for_update(no_key=True).values_list("pk", flat=True))
    Bucket.objects.filter(pk__in=buckets).update(owner=receiver)
    Upload.objects.filter(part__bucket__in=buckets).update(owner=receiver)
    Job.objects.filter(upload__part__bucket__in=buckets).update(owner=receiver)
    log.info("buckets.given", giver=giver.pk, receiver=receiver.pk, buckets=len(buckets))
    return len(buckets)


def delete_bucket(bucket: Bucket) -> None:
    """Delete a bucket without objects: abort its multipart uploads, and refuse bodies that still arrive for it.

    Raises:
        NoSuchBucket: the bucket has been deleted already.
        BucketNotEmpty: the bucket has an object.
    """
    with transaction.atomic():
        # A transaction locks the bucket before it adds a row to the bucket, so this lock keeps new rows out (RACES 47).
        if not Bucket.objects.select_for_update().filter(pk=bucket.pk).exists():
            raise NoSuchBucket(f"no bucket {bucket.name}")
        if Object.objects.filter(bucket=bucket).exists():
            raise BucketNotEmpty(f"the bucket {bucket.name} has objects")
        Multipart.objects.locked(Multipart.objects.filter(bucket=bucket).values_list("pk", flat=True))
        uploads = drop_parts(list(Part.objects.filter(bucket=bucket).values_list("pk", flat=True)))
        Multipart.objects.filter(bucket=bucket).delete()
        Bucket.objects.filter(pk=bucket.pk).delete()
    for upload_id in uploads:
        files.discard(upload_id)
    log.info("bucket.deleted", bucket=bucket.name)
