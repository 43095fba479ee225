"""Whose page a session of gradio's is. Its hash is no secret, so whoever names one must also be its owner."""

from __future__ import annotations

import datetime
from typing import Any

from ui.people import Visitor

KEPT_SECONDS = 3600
"""What a page that was closed, or went to sleep with its computer, can come back to."""
EMPTY_SECONDS = 60


def claim(session: Any, visitor: Visitor) -> bool:
    """Whether the session is this visitor's, or nobody's until now. An address, shared and changing, owns none."""
    if not (visitor.seat or visitor.name):
        return getattr(session, "owner", "") == ""
    if not hasattr(session, "owner"):
        session.owner = visitor.key
    return bool(session.owner == visitor.key)


def is_of_another(holder: Any, session_hash: str, visitor: Visitor) -> bool:
    """Whether a session that exists is somebody else's."""
    session = holder.session_data.get(session_hash)
    return session is not None and not claim(session, visitor)


def pages_of(holder: Any, key: str) -> list[str]:
    """The session hashes of one person."""
    return [page for page, session in list(holder.session_data.items()) if getattr(session, "owner", "") == key]


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
    nothing, after a minute; how many they were. A call may wait for its turn longer than that."""
    now = now or datetime.datetime.now()
    busy = {event.session_hash for event in list(holder.blocks._queue.event_ids_to_events.values())}
    old = []
    for page, session in list(holder.session_data.items()):
        if page in busy:
            continue
        idle = (now - holder.time_last_used.get(page, now)).total_seconds()
        if (session.is_closed and idle >= KEPT_SECONDS) or (not session.state_data and idle >= EMPTY_SECONDS):
            old.append(page)
    for page in old:
        forget(holder, page)
    return len(old)
