from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from storage.models.names import end_of_prefix

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=4) | st.text("a\ud7ff\ue000\U0010ffff", max_size=4)


@given(prefix=TEXT, text=TEXT)
def test_a_text_has_the_prefix_if_it_is_between_the_prefix_and_its_end(prefix: str, text: str) -> None:
    end = end_of_prefix(prefix)
    assert text.startswith(prefix) == (prefix <= text and (end is None or text < end))
    assert (prefix + text).startswith(prefix)
    assert end is None or prefix + text < end


@given(prefix=TEXT)
def test_the_end_of_a_prefix_is_a_text_that_a_database_takes(prefix: str) -> None:
    (end_of_prefix(prefix) or "").encode()
