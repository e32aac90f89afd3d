from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage.volumes.base import HEADROOM, HEADROOM_FILES, Lack, Space

BYTES = st.integers(0, 4 * HEADROOM)
FILES = st.integers(0, 4 * HEADROOM_FILES)


@pytest.mark.parametrize(
    ("free", "free_files", "lack"),
    [
        (HEADROOM + 1, HEADROOM_FILES + 1, ""),
        (HEADROOM, HEADROOM_FILES + 1, "bytes"),
        (HEADROOM + 1, HEADROOM_FILES, "files"),
        (HEADROOM + 1, None, ""),
        (0, 0, "bytes"),
    ],
)
def test_a_volume_is_full_when_the_headroom_of_bytes_or_of_files_is_touched(
    free: int, free_files: int | None, lack: Lack
) -> None:
    space = Space("disk", free, 10 * HEADROOM, free_files=free_files)
    assert (space.lack, space.is_full) == (lack, bool(lack))


@given(BYTES, st.none() | FILES, BYTES, FILES)
def test_what_leaves_room_for_one_more_leaves_a_volume_that_is_not_full(
    free: int, free_files: int | None, size: int, files: int
) -> None:
    space = Space("disk", free, 4 * HEADROOM, free_files=free_files)
    assert space.lacks(size + 1, files + 1) == space.less(size, files).lack


def test_a_file_system_without_a_limit_of_files_lacks_none(tmp_path: Path) -> None:
    found = list(os.statvfs(tmp_path))
    found[5] = found[6] = found[7] = 0  # Btrfs reports 0 for f_files, f_ffree and f_favail.
    assert Space.of(os.statvfs_result(found), "disk", writable=True).free_files is None
