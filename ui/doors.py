"""The one ASGI layer in front of the page: which endpoints can be called by name, what the browser may fetch, and whose
request it is."""

from __future__ import annotations

import re

from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ui.people import People
from ui.tabs import TABS

# Under it nothing that a model writes makes the browser call anyone else.
CONTENT_POLICY = (
    b"img-src 'self' data: blob:; media-src 'self' data: blob:; connect-src 'self'; object-src 'none'; frame-src 'none'"
)
_BY_NAME = re.compile(r"/gradio_api/(?P<way>call/v2|call|run|api)/(?P<name>[^/]+)")
_TABS = frozenset(spec.id for spec in TABS)
# 'run/predict' is how the page itself calls what needs no place in line; all else by name goes through the queue.
_OPEN = {"call": _TABS, "call/v2": _TABS, "run": frozenset({"predict"}), "api": frozenset({"predict"})}


class Doors:
    """ASGI middleware: answers 404 for whatever is not a named endpoint, notes in a request's state for whom it counts,
    adds the content policy to every answer, and gives a seat to who opens the page without one."""

    def __init__(self, app: ASGIApp, people: People) -> None:
        self.app, self.people = app, people

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        if (found := _BY_NAME.match(scope["path"])) and found["name"] not in _OPEN[found["way"]]:
            await JSONResponse({"error": "There is no such endpoint."}, 404)(scope, receive, send)
            return

        scope.setdefault("state", {})["person"] = self.people.key(scope)
        added = [(b"content-security-policy", CONTENT_POLICY)]
        if scope["path"] == "/" and not self.people.seat(Headers(scope=scope)):
            added.append((b"set-cookie", self.people.new_seat(scope).encode()))

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], *added]
            await send(message)

        await self.app(scope, receive, with_headers)
