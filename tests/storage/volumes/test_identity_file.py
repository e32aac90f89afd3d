from __future__ import annotations

import json
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from storage import volumes
from storage.volumes import Identity, identity_file

NAMES = st.text(st.characters(codec="utf-8"), min_size=1, max_size=40)
TOKENS = st.integers(0, 2**128 - 1).map(lambda number: f"{number:032x}")
GENERATIONS = st.lists(TOKENS, max_size=volumes.GENERATIONS).map(tuple)
IDENTITIES = st.builds(Identity, NAMES, NAMES, NAMES, GENERATIONS)
UUID = "12345678-1234-1234-1234-123456789abc"


@given(IDENTITIES)
def test_what_is_encoded_is_decoded(identity: Identity) -> None:
    assert identity_file.decode(identity_file.encode(identity), Path("volume")) == identity


@given(st.text("node_0123456789", min_size=1, max_size=64), GENERATIONS)
def test_identities_as_clusters_have_them_take_one_sector(node_id: str, generations: tuple[str, ...]) -> None:
    assert len(identity_file.encode(Identity(UUID, node_id, UUID, generations))) == identity_file.SIZE


@given(NAMES, st.integers(0, 2**63 - 1))
def test_an_identity_of_the_first_format_is_read(name: str, generation: int) -> None:
    """In the first format, a generation was a number."""
    fields = {"format": 1, "cluster": name, "node_id": name, "node": name, "generation": generation}
    expected = (f"{generation:032x}",) if generation else ()
    assert identity_file.decode(json.dumps(fields).encode(), Path("volume")) == Identity(name, name, name, expected)


@given(GENERATIONS, GENERATIONS, st.data())
def test_a_file_that_is_half_overwritten_still_names_its_volume(
    old: tuple[str, ...], new: tuple[str, ...], data: st.DataObject
) -> None:
    """The file has new bytes up to any position, and old bytes after that position."""
    identity = Identity(UUID, "node_000", UUID)
    before, after = identity_file.encode(identity.at(*old)), identity_file.encode(identity.at(*new))
    cut = data.draw(st.integers(0, identity_file.SIZE))
    for torn in (before[:cut] + after[cut:], after[:cut] + before[cut:]):
        assert identity_file.decode(torn, Path("volume")).same_volume(identity)
