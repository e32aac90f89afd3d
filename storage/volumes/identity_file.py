"""The identity file of a volume in a directory. It has a fixed size, so that a full file system can still change it."""

from __future__ import annotations

import errno
import json
import os
from dataclasses import asdict
from pathlib import Path

from storage.exceptions import ForeignVolume
from storage.volumes.base import Identity
from storage.volumes.descriptors import open_at

NAME = "identity"
FORMAT = 2
SIZE = 512  # bytes: one sector, which a medium writes as a whole or not at all


def encode(identity: Identity) -> bytes:
    """JSON of ``SIZE`` bytes.

    The generations come last, in a string that fills the sector. Files of one volume differ inside this string only, so
    that a reader who meets ``overwrite`` half done always finds JSON, and always the right volume.
    """
    fields = asdict(identity)
    generations = " ".join(fields.pop("generations"))
    head = json.dumps({"format": FORMAT, **fields})[:-1] + ', "generations": "'
    return f'{head}{generations:<{max(SIZE - len(head) - 2, 0)}}"}}'.encode()


def decode(data: bytes, root: Path) -> Identity:
    """The identity in a file's bytes, which an older version may have written.

    Args:
        data: the bytes.
        root: where they were found, for the messages.

    Raises:
        ForeignVolume: they are no identity of a known format.
    """
    try:
        fields = json.loads(data)
        form = fields.pop("format")
        if form not in (1, FORMAT):
            raise ForeignVolume(f"{root} has another format")
        if form == 1:
            fields["generations"] = first_format(fields.pop("generation"))
        return Identity(**{**fields, "generations": tuple(fields["generations"].split())})
    except (ValueError, TypeError, KeyError, AttributeError):
        raise ForeignVolume(f"{root} carries an identity that cannot be read") from None


def first_format(generation: int) -> str:
    """The token of a generation of format 1, which was a number; 0 stood for none.

    Migration 0007 gives these tokens to the generations that such a database knows.
    """
    return f"{generation:032x}" if generation else ""


def overwrite(root: int, data: bytes) -> None:
    """Change the bytes of the file where they lie, durably. This takes neither a block nor an inode.

    Raises:
        OSError: the file system has to find a block for it after all, and has none; or it failed.
    """
    with open_at(root, NAME, os.O_WRONLY | os.O_CLOEXEC) as file:
        if os.pwrite(file, data, 0) != len(data):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), NAME)
        os.fsync(file)
