"""The one table of routes: what can be reached, and by whom. Whatever stands in no row is closed.

A route of ours is an `OwnRoute` and says who may use it where it is defined. Gradio's are listed here. What a request
calls `session_hash`, `upload_id` or `event_id`, in whichever row, is the visitor's own or nothing: see
`ui.visitors.owners`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

from starlette.routing import Route

from ui.conversation.tabs import TABS

Access = Literal["public", "signed_in"]
"""'signed_in' is everybody where the host has opened no way to sign in."""
Body = Literal["json", "upload", "other"]


@dataclass(frozen=True)
class Row:
    """`path` as the route has it; `names`: what its {api_name} may be. `kept`: what it brings stays in memory."""

    path: str
    methods: frozenset[str] = frozenset({"GET"})
    access: Access = "signed_in"
    body: Body = "other"
    kept: bool = False
    names: tuple[str, ...] = ()

    @cached_property
    def pattern(self) -> re.Pattern[str]:
        def place(found: re.Match[str]) -> str:
            name, is_path = found[1], found[2]
            if name == "api_name":
                return f"(?P<api_name>{'|'.join(map(re.escape, self.names))})"
            return f"(?P<{name}>{'.*' if is_path else '[^/]+'})"

        return re.compile(re.sub(r"\\\{(\w+)(:path)?\\\}", place, re.escape(self.path)), re.DOTALL)

    def filled(self, values: dict[str, str]) -> str:
        """The path with these in its places."""
        return re.sub(r"\{(\w+)(?::path)?\}", lambda found: values[found[1]], self.path)


class OwnRoute(Route):
    def __init__(self, path: str, endpoint: Callable[..., Any], access: Access, *, methods: Iterable[str] = ("GET",)):
        super().__init__(path, endpoint, methods=list(methods))
        self.access = access

    @property
    def row(self) -> Row:
        return Row(self.path, frozenset(self.methods or ()), self.access)


_GET, _POST, _BOTH = frozenset({"GET"}), frozenset({"POST"}), frozenset({"GET", "HEAD"})
_TABS = tuple(spec.id for spec in TABS)
_API = "/gradio_api"
GRADIO = (
    Row("/", _BOTH),
    Row("/config"),
    Row("/theme.css"),
    Row("/favicon.ico", access="public"),
    Row("/robots.txt"),
    Row("/manifest.json"),
    Row("/logout"),
    Row("/login/huggingface", access="public"),  # these two are there where the host has opened that way
    Row("/login/callback", access="public"),
    Row("/static/{path:path}"),
    Row("/assets/{path:path}"),
    Row("/svelte/{path:path}"),
    *(
        Row(f"{_API}/{name}")
        for name in ("app_id", "info", "openapi.json", "login_check", "theme.css", "token", "user")
    ),
    Row(f"{_API}/startup-events", access="public"),  # which gradio asks of itself when it is launched
    Row(f"{_API}/file={{path_or_url:path}}", _BOTH),
    Row(f"{_API}/upload", _POST, body="upload"),
    Row(f"{_API}/upload_progress"),
    Row(f"{_API}/heartbeat/{{session_hash}}"),
    Row(f"{_API}/queue/join", _POST, body="json", kept=True),
    Row(f"{_API}/queue/data"),
    Row(f"{_API}/cancel", _POST, body="json"),
    Row(f"{_API}/reset", _POST, body="json"),
    # 'run/predict' is how the page itself calls what needs no place in line; all else by name goes through the queue.
    Row(f"{_API}/run/{{api_name}}", _POST, body="json", kept=True, names=("predict",)),
    Row(f"{_API}/api/{{api_name}}", _POST, body="json", kept=True, names=("predict",)),
    Row(f"{_API}/call/{{api_name}}", _POST, body="json", names=_TABS),
    Row(f"{_API}/call/v2/{{api_name}}", _POST, body="json", names=_TABS),
    Row(f"{_API}/call/{{api_name}}/{{event_id}}", names=_TABS),
    Row(f"{_API}/call/v2/{{api_name}}/{{event_id}}", names=_TABS),
)
"""Gradio's own that the page and programs need."""


def find(rows: Iterable[Row], path: str, method: str) -> tuple[Row | None, dict[str, str]]:
    """The row for a path without a slash at its end, and what stands in its places. Where no row of that path takes
    the method it is one that does not."""
    other: tuple[Row | None, dict[str, str]] = (None, {})
    for row in rows:
        if found := row.pattern.fullmatch(path):
            if method in row.methods:
                return row, found.groupdict()
            other = row, found.groupdict()
    return other
