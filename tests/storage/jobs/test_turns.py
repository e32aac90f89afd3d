from __future__ import annotations

from storage.jobs.turns import in_turn
from tests.support.cluster import ClusterUnderTest


def test_it_is_one_process_s_turn_at_a_time(cluster: ClusterUnderTest) -> None:
    with in_turn("here") as mine, in_turn("here") as second, in_turn("there") as elsewhere:
        assert (mine, second, elsewhere) == (True, False, True)
    with in_turn("here") as mine:
        assert mine, "nobody else has it any more"
