"""The identity file of a volume in a directory. Its size is fixed, so it can be changed on a full file system too."""

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
SIZE = 512  # bytes: a medium writes one sector as a whole or not at all


def encode(identity: Identity) -> bytes:
    """JSON of ``SIZE`` bytes.

    The generations come last, in a string that fills the sector. All identity files of one volume differ only inside
    this string. So a process that reads while ``overwrite`` is half done always finds JSON, and the right volume.
    """
    fields = asdict(identity)
    generations = " ".join(fields.pop("generations"))
    head = json.dumps({"format": FORMAT, **fields})[:-1] + ', "generations": "'
    return f'{head}{generations:<{max(SIZE - len(head) - 2, 0)}}"}}'.encode()


def decode(data: bytes, root: Path) -> Identity:
    """The identity in the bytes of an identity file; an older version of this program may have written the file.

    Args:
        data: the bytes.
        root: the volume's directory, for the error messages.

    Raises:
        ForeignVolume: the bytes are no identity of a known format.
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
    """The token for a generation of format 1, in which a generation was a number, and 0 stood for no generation.

    Migration 0007 gives the same tokens to the generations of a database of that time.
    """
    return f"{generation:032x}" if generation else ""


def overwrite(root: int, data: bytes) -> None:
    """Overwrite the bytes of the file in place, durably. This normally takes neither a block nor an inode.

    Raises:
        OSError: the write failed, or the file system needed a new block and had none.
    """
    with open_at(root, NAME, os.O_WRONLY | os.O_CLOEXEC) as file:
        if os.pwrite(file, data, 0) != len(data):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), NAME)
        os.fsync(file)
