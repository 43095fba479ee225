"""The one ASGI layer in front of the page: what can be reached, by whom, from where, with how much, and under which
headers the answer goes out."""

from __future__ import annotations

import errno
import re
from urllib.parse import quote, urlsplit

from gradio.route_utils import CustomCORSMiddleware
from limits import RateLimitItemPerHour
from limits.storage import MemoryStorage
from limits.strategies import FixedWindowRateLimiter
from starlette.datastructures import Headers
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from backends.core.logs import logger
from backends.machine.machine import THIS_MACHINE
from ui.server.bodies import Body, Charge, Fault, Sums, free
from ui.server.content_policy import Guarded
from ui.server.forwarding import as_asked
from ui.server.routes import GRADIO, Row, find
from ui.visitors.owners import NO_EVENT, Named
from ui.visitors.people import People, Visitor

log = logger(__name__)

SEATS_AN_HOUR = 120
"""How many new seats an address gets; whoever wants more of them shares one with the address."""
_CALLS = ("/gradio_api/run/", "/gradio_api/api/", "/gradio_api/call/", "/gradio_api/queue/")
"""Where gradio itself falls over what fits nothing: no such handler, too few values, no such name or page."""
_FULL = "The disk of the server is full, so that nothing can be uploaded; tell its host. What you wrote is still there."
_UNFIT = "The request does not fit the endpoint; GET /gradio_api/info tells which values it takes."
_NO_EVENT = "There is no such event: it has been told to its end, or it is not yours. Send a new request."
_HOST = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[\w.-]+)(:\d{1,5})?")


class Doors:
    """ASGI middleware. Notes in a request's state who the `visitor` is.

    `rows`: all that is open. `hosts`: the names under which the playground may be reached, all where there are none;
    `frames`: the origins of pages that may show it.
    """

    def __init__(
        self,
        app: ASGIApp,
        people: People,
        rows: tuple[Row, ...] = GRADIO,
        hosts: tuple[str, ...] = (),
        frames: tuple[str, ...] = (),
    ) -> None:
        self.app, self._people, self._rows, self._frames = app, people, rows, frames
        # No other site's name can lead here under a name of this machine.
        self._hosts = frozenset(map(_bare, hosts)) | THIS_MACHINE if hosts else frozenset()
        self._seats = FixedWindowRateLimiter(MemoryStorage())
        self._sums = Sums()
        self._told: set[str] = set()  # the events that somebody is being told

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
        elif scope["type"] == "http":
            await self._http(as_asked(scope, self._people.proxies), receive, send)
        else:
            await send({"type": "websocket.close"})  # nothing here speaks it

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        visitor = self._people.visitor(scope)
        scope.setdefault("state", {})["visitor"] = visitor
        row, places = find(self._rows, scope["path"].rstrip("/") or "/", scope["method"])
        body = self._body(row, scope, receive, visitor)
        guarded = Guarded(send, self._frames, self._new_seat(scope, visitor))

        async def answer(message: Message) -> None:
            if body.fault is None or guarded.started:  # what the app says of a body that was cut off is not our answer
                await guarded.send(message)

        refusal = self._refusal(row, scope, visitor) or _fault(body)
        if refusal is None and row is not None:
            refusal = await _own(row, places, scope, body, visitor)
        event = places.get("event_id", "")
        if refusal is None and event in self._told:
            refusal = _no_event()  # one of two who listen would wait for ever for what the other one was told
        if refusal is not None:
            await refusal(scope, receive, guarded.send)
            return
        if event:
            self._told.add(event)
        try:
            await self.app(scope, body.receive, answer)
        except Exception as exc:
            full = isinstance(exc, OSError) and exc.errno == errno.ENOSPC
            if not (full or body.fault or scope["path"].startswith(_CALLS)):
                raise
            if body.fault is None:
                log.warning("no room on the disk" if full else "a request did not fit", exc_info=True)
                body.fault = Fault(507, _FULL) if full else Fault(400, _UNFIT)
            if guarded.started:  # the stream of a page that there is not ends so, after gradio has said it
                await guarded.send({"type": "http.response.body", "body": b""})
        finally:
            self._told.discard(event)
        if not guarded.started and (refusal := _fault(body)) is not None:
            await refusal(scope, receive, guarded.send)

    def _refusal(self, row: Row | None, scope: Scope, visitor: Visitor) -> Response | None:
        headers = Headers(scope=scope)
        host = headers.get("host", "")
        named = _HOST.fullmatch(host)
        if named is None or (self._hosts and _bare(named[1]) not in self._hosts):
            return JSONResponse({"error": "The playground is not reached under this host name."}, 400)
        if row is None:
            return JSONResponse({"error": "There is no such endpoint."}, 404)
        if (origin := headers.get("origin")) is not None and _netloc(origin) != host:
            return JSONResponse({"error": "Other sites cannot call the playground."}, 403)
        if row.access != "public" and not self._people.may_enter(visitor):
            if row.path == "/":
                return RedirectResponse("login", 303)
            return JSONResponse({"error": "Sign in first: open the playground's page, or POST to /login."}, 401)
        if scope["method"] not in row.methods:
            allowed = ", ".join(sorted(row.methods))
            return JSONResponse({"error": f"This endpoint takes {allowed}."}, 405, {"allow": allowed})
        return None

    def _body(self, row: Row | None, scope: Scope, receive: Receive, visitor: Visitor) -> Body:
        address, upload = self._people.address(scope), row is not None and row.body == "upload"
        charge: Charge = free
        if upload:
            charge = self._sums.uploads(visitor.key, address)
        elif row is not None and row.kept:
            charge = self._sums.kept(visitor.key, address)
        return Body(scope, receive, upload=upload, charge=charge)

    def _new_seat(self, scope: Scope, visitor: Visitor) -> list[str]:
        """The cookie for who opens the page, or lets a program open it, without one."""
        if visitor.seat or scope["path"] not in ("/", "/config"):
            return []
        address = self._people.address(scope)
        if not visitor.host and not self._seats.hit(RateLimitItemPerHour(SEATS_AN_HOUR), address):
            return []
        return [self._people.new_seat(scope)]


async def _own(row: Row, places: dict[str, str], scope: Scope, body: Body, visitor: Visitor) -> Response | None:
    """Has a request mean what is its sender's, whatever it names; what to answer where that is nothing."""
    named = Named(scope["app"].state_holder, visitor)
    if places:
        places = named.path(places)
        if places.get("event_id") == NO_EVENT:
            return _no_event()
        scope["path"] = row.filled(places)
        scope["raw_path"] = quote(scope["path"]).encode("ascii")
    scope["query_string"] = named.query(scope.get("query_string", b""))
    if row.body == "json":
        told = await body.whole()
        if body.fault is not None:
            return _fault(body)
        try:
            body.replace(named.body(told))
        except ValueError:
            return JSONResponse({"error": _UNFIT}, 422)
    return None


def _no_event() -> Response:
    return Response(f'event: error\ndata: "404: {_NO_EVENT}"\n\n', 404, media_type="text/event-stream")


def _fault(body: Body) -> Response | None:
    if body.fault is None:
        return None
    status, sentence, wait_s = body.fault
    return JSONResponse({"error": sentence}, status, {"retry-after": str(wait_s)} if wait_s else None)


def _bare(host: str) -> str:
    """A name as it is compared: an address of IPv6 stands in brackets in a URL."""
    return host.lower().strip("[]")


def _netloc(origin: str) -> str:
    """Host and port of an origin; empty where it has none."""
    try:
        return urlsplit(origin).netloc
    except ValueError:
        return ""


def _is_own_origin(_: object, request_headers: Headers) -> bool:
    netloc = _netloc(request_headers.get("origin", ""))
    return netloc != "" and netloc == request_headers.get("host", "")


# Gradio's answers every origin where the host is no localhost. It stands outside of `Doors`, so its rule is replaced.
CustomCORSMiddleware.is_valid_origin = _is_own_origin
