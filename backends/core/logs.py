"""The log: a line of JSON for everything that happens, which names nobody and quotes nothing.

A person is a hash that only this playground can make and that is another one every day. Of an exception the log has its
type and the way it took, not its words: those may hold what somebody typed.
"""

from __future__ import annotations

import datetime
import hashlib
import hmac
import logging
import secrets
import sys
import traceback
from pathlib import Path
from typing import Any

import structlog
from structlog.typing import EventDict, Processor

QUIET = ("httpx", "uvicorn.access")
FOREIGN = ("uvicorn", "uvicorn.error", "uvicorn.access")  # have handlers of their own, which know no JSON
_key = secrets.token_bytes(32)


def daily_hash(person: str, key: bytes, day: datetime.date) -> str:
    """The same for a person all day long; without the key nobody can tell whose it is, or join two days."""
    of_the_day = hmac.new(key, f"log of {day.isoformat()}".encode(), hashlib.sha256).digest()
    return hmac.new(of_the_day, person.encode(), hashlib.sha256).hexdigest()[:12]


def _nameless(_: Any, __: str, event: EventDict) -> EventDict:
    if "person" in event:
        today = datetime.datetime.now(datetime.UTC).date()
        event["person"] = daily_hash(event["person"], _key, today) if event["person"] else None
    return event


def _wordless(_: Any, __: str, event: EventDict) -> EventDict:
    """An exception as its type and the lines of code that it came through, the innermost last."""
    info = event.pop("exc_info", None)
    if info is True:
        info = sys.exc_info()
    error = info[1] if isinstance(info, tuple) else info
    if isinstance(error, BaseException):
        frames = traceback.extract_tb(error.__traceback__)
        event["exception"] = type(error).__name__
        event["at"] = [f"{Path(frame.filename).name}:{frame.lineno} {frame.name}" for frame in frames[-12:]]
    return event


_CHAIN: list[Processor] = [
    structlog.stdlib.add_logger_name,
    structlog.stdlib.add_log_level,
    structlog.processors.TimeStamper(fmt="iso", utc=True),
    _nameless,
    _wordless,
]
structlog.configure(
    processors=[structlog.stdlib.filter_by_level, *_CHAIN, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
    logger_factory=structlog.stdlib.LoggerFactory(),
    wrapper_class=structlog.stdlib.BoundLogger,
)


def logger(name: str) -> Any:
    return structlog.get_logger(name)


def configure(level: str, key: bytes) -> None:
    """Sends everything to stderr, other libraries' messages too. `key` makes the hashes of people."""
    global _key
    _key = key
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=_CHAIN,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.JSONRenderer(ensure_ascii=False),
            ],
        )
    )
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    for name in QUIET:
        logging.getLogger(name).setLevel(logging.WARNING)


def adopt() -> None:
    """Takes the web server's own messages in, once it has set itself up."""
    for name in FOREIGN:
        server = logging.getLogger(name)
        server.handlers.clear()
        server.propagate = True
