"""Whose page a session of gradio's is, and whose an event. The rule: nobody can name what is not theirs.

A visitor's pages have names of their own on this server: whatever a request calls `session_hash` or `upload_id` is
looked up among those of who sent it, so that the same word means another page, or none, for everybody else. An event
is one of a visitor's pages or there is none. So another's and an invented one are the same, for every route.
"""

from __future__ import annotations

import datetime
import hashlib
import json
import secrets
from collections import defaultdict
from typing import Any
from urllib.parse import parse_qsl, urlencode

from ui.visitors.people import Visitor

KEPT_SECONDS = 3600
"""What a page that was closed, or went to sleep with its computer, can come back to."""
EMPTY_SECONDS = 60
MOST_PAGES = 100
"""How many pages of one person are kept; of more, those that were not used for longest are forgotten."""
NO_EVENT = "no-such-event"
_MARK = 24  # hexadecimal digits; of a fixed length, so that no word can end one and begin another


def mark(key: str) -> str:
    """How the names of all pages of one person begin."""
    return _digest(key)


def page_of(visitor: Visitor, told: str) -> str:
    """The page that a visitor means by what their browser calls it."""
    return mark(visitor.key) + _digest(told)


def new_page(visitor: Visitor) -> str:
    """For a call of an endpoint, which names none."""
    return mark(visitor.key) + secrets.token_hex(_MARK // 2)


def is_theirs(page: str, visitor: Visitor) -> bool:
    return page.startswith(mark(visitor.key))


class Named:
    """What a request names, as it is to be read for this visitor. `holder`: gradio's, of all sessions."""

    def __init__(self, holder: Any, visitor: Visitor) -> None:
        self._holder, self._visitor = holder, visitor

    def path(self, places: dict[str, str]) -> dict[str, str]:
        return {name: self._meant(name, value) for name, value in places.items()}

    def query(self, query: bytes) -> bytes:
        """As starlette reads it; of several with one name it takes the last."""
        told = parse_qsl(query.decode("latin-1"), keep_blank_values=True)
        meant = [(name, self._meant(name, value)) for name, value in told]
        return query if meant == told else urlencode(meant).encode("ascii")

    def body(self, body: bytes) -> bytes:
        """Of JSON. Raises ValueError where it is none."""
        try:
            told = json.loads(body)
        except RecursionError as exc:
            raise ValueError("too deep") from exc
        if not isinstance(told, dict):
            return body
        meant = {name: self._meant(name, value) for name, value in told.items()}
        return body if meant == told else json.dumps(meant).encode("ascii")

    def _meant(self, name: str, value: Any) -> Any:
        if not isinstance(value, str):
            return value  # null names nothing, and gradio refuses all else
        if name in ("session_hash", "upload_id"):
            return page_of(self._visitor, value)
        if name == "event_id":
            return value if self._is_own_event(value) else NO_EVENT
        return value

    def _is_own_event(self, event: str) -> bool:
        """Whether it was begun by this visitor and its end has not been told yet."""
        pending = self._holder.blocks._queue.pending_event_ids_session
        return any(event in events for page, events in list(pending.items()) if is_theirs(page, self._visitor))


def pages_of(holder: Any, key: str) -> list[str]:
    """All that is kept for one person, pages and what waits to be told."""
    queue, begin = holder.blocks._queue, mark(key)
    kept = (holder.session_data, queue.pending_messages_per_session, queue.pending_event_ids_session)
    return sorted({page for pages in kept for page in list(pages) if page.startswith(begin)})


def forget(holder: Any, page: str) -> None:
    """Everything that gradio keeps of a session; what runs for it goes on writing into nothing."""
    holder.delete_state(page)
    with holder.lock:
        holder.session_data.pop(page, None)
        holder.time_last_used.pop(page, None)
    queue = holder.blocks._queue
    for streams in (queue.pending_messages_per_session, queue.pending_event_ids_session):
        streams.pop(page, None)


def sweep(holder: Any, now: datetime.datetime | None = None) -> int:
    """Forgets pages an hour after they were closed, and what gradio makes for every call of an endpoint, which keeps
    nothing, after a minute, and of one person's pages the oldest when they are very many; how many they were. A call
    may wait for its turn longer than that."""
    now = now or datetime.datetime.now()
    busy = {event.session_hash for event in list(holder.blocks._queue.event_ids_to_events.values())}
    old, kept = [], defaultdict(list)
    for page, session in list(holder.session_data.items()):
        if page in busy:
            continue
        idle = (now - holder.time_last_used.get(page, now)).total_seconds()
        if (session.is_closed and idle >= KEPT_SECONDS) or (not session.state_data and idle >= EMPTY_SECONDS):
            old.append(page)
        else:
            kept[page[:_MARK]].append((idle, page))
    for pages in kept.values():
        old += [page for _, page in sorted(pages)[MOST_PAGES:]]
    for page in old:
        forget(holder, page)
    return len(old)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:_MARK]
