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
FORMAT = 1
SIZE = 512  # bytes: one sector, which a medium writes as a whole or not at all


def encode(identity: Identity) -> bytes:
    """JSON of ``SIZE`` bytes.

    The generation comes last and is aligned to the right. Files of one volume differ in its digits only, so that a
    reader who meets ``overwrite`` half done always finds JSON, and always the right volume.
    """
    fields = asdict(identity)
    generation = fields.pop("generation")
    head = json.dumps({"format": FORMAT, **fields})[:-1] + ', "generation": '
    return f"{head}{generation:>{SIZE - len(head) - 1}}}}".encode()


def decode(data: bytes, root: Path) -> Identity:
    """The identity in a file's bytes, which an older version may have written in another length.

    Args:
        data: the bytes.
        root: where they were found, for the messages.

    Raises:
        ForeignVolume: they are no identity of this format.
    """
    try:
        fields = json.loads(data)
        if fields.pop("format") != FORMAT:
            raise ForeignVolume(f"{root} has another format")
        return Identity(**fields)
    except (ValueError, TypeError, KeyError, AttributeError):
        raise ForeignVolume(f"{root} carries an identity that cannot be read") from None


def overwrite(root: int, data: bytes) -> None:
    """Change the bytes of the file where they lie, durably. This takes neither a block nor an inode.

    Raises:
        OSError: the file system has to find a block for it after all, and has none; or it failed.
    """
    with open_at(root, NAME, os.O_WRONLY | os.O_CLOEXEC) as file:
        if os.pwrite(file, data, 0) != len(data):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), NAME)
        os.fsync(file)
