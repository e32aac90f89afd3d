from __future__ import annotations

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from storage.volumes import Identity, identity_file

NAMES = st.text(st.characters(codec="utf-8"), min_size=1, max_size=40)
IDENTITIES = st.builds(Identity, NAMES, NAMES, NAMES, st.integers(0, 2**63 - 1))
UUID = "12345678-1234-1234-1234-123456789abc"


@given(IDENTITIES)
def test_what_is_encoded_is_decoded(identity: Identity) -> None:
    assert identity_file.decode(identity_file.encode(identity), Path("volume")) == identity


@given(st.text("node_0123456789", min_size=1, max_size=64), st.integers(0, 2**63 - 1))
def test_identities_as_clusters_have_them_take_one_sector(node_id: str, generation: int) -> None:
    assert len(identity_file.encode(Identity(UUID, node_id, UUID, generation))) == identity_file.SIZE


@given(st.integers(0, 2**63 - 1), st.integers(0, 2**63 - 1), st.data())
def test_a_file_that_is_half_overwritten_still_names_its_volume(old: int, new: int, data: st.DataObject) -> None:
    """Wherever the bytes of one end and those of the other begin."""
    identity = Identity(UUID, "node_000", UUID)
    before, after = identity_file.encode(identity.at(old)), identity_file.encode(identity.at(new))
    cut = data.draw(st.integers(0, identity_file.SIZE))
    for torn in (before[:cut] + after[cut:], after[:cut] + before[cut:]):
        assert identity_file.decode(torn, Path("volume")).same_volume(identity)
