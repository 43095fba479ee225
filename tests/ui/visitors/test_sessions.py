"""Which answers run for whom, and the key under which engines elsewhere know a conversation."""

from __future__ import annotations

import pytest

from ui.visitors.sessions import Sessions


def test_a_conversation_has_one_key_that_tells_nothing() -> None:
    sessions = Sessions()
    key = sessions.conversation("page-1", "chat")
    assert key == sessions.conversation("page-1", "chat")
    assert key not in (sessions.conversation("page-1", "math"), sessions.conversation("page-2", "chat"))
    assert key != Sessions().conversation("page-1", "chat"), "another start of the playground makes another one"
    assert "page-1" not in key
    assert len(key) == 32


def test_a_tab_has_one_answer_at_a_time_and_is_free_again_however_it_ends() -> None:
    sessions, begun = Sessions(), []

    def breaks() -> None:
        with sessions.answering("page", "chat") as controls:
            begun.append(controls)
            with sessions.answering("page", "chat") as second, sessions.answering("page", "math") as other:
                assert second is None
                assert other is not None
            assert sessions.find("page", "chat") is controls, "the one that was refused ends nothing"
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        breaks()
    assert begun[0].cancel.is_set()
    assert sessions.find("page", "chat") is None


def test_a_page_that_goes_stops_what_runs_for_it_and_nothing_else() -> None:
    sessions = Sessions()
    with sessions.answering("page", "chat") as mine, sessions.answering("other", "chat") as other:
        assert mine is not None
        assert other is not None
        sessions.close("page")
        assert mine.cancel.is_set()
        assert not other.cancel.is_set()
