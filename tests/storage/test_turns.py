from __future__ import annotations

import threading

from storage.turns import in_turn
from tests.cluster import ClusterUnderTest


def test_others_wait_while_it_is_somebodys_turn(cluster: ClusterUnderTest) -> None:
    order: list[str] = []
    with in_turn("here", 0):
        waiter = threading.Thread(target=_append_in_turn, args=(order, "second"))
        waiter.start()
        order.append("first")
    waiter.join()
    assert order == ["first", "second"]


def test_a_turn_that_is_ended_early_holds_up_nobody(cluster: ClusterUnderTest) -> None:
    order: list[str] = []
    with in_turn("here", 0) as turn:
        turn.end()
        waiter = threading.Thread(target=_append_in_turn, args=(order, "other"))
        waiter.start()
        waiter.join()  # within the body
        assert order == ["other"]


def test_who_has_waited_for_long_enough_goes_on_regardless(cluster: ClusterUnderTest) -> None:
    order: list[str] = []
    with in_turn("here", 0), in_turn("here", 0.01):
        order.append("within")
    assert order == ["within"]


def _append_in_turn(order: list[str], name: str) -> None:
    with in_turn("here", 60):
        order.append(name)
