"""The one ASGI layer in front of the page: what can be reached, by whom, from where, with how much, and under which
headers the answer goes out."""

from __future__ import annotations

import errno
import json
import re
from urllib.parse import parse_qs, urlsplit

from gradio.route_utils import CustomCORSMiddleware
from limits import RateLimitItemPerHour
from limits.storage import MemoryStorage
from limits.strategies import FixedWindowRateLimiter
from starlette.datastructures import Headers
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from backends.logs import logger
from backends.machine import THIS_MACHINE
from ui.bodies import Body
from ui.content_policy import Guarded
from ui.owners import is_of_another
from ui.people import People, Visitor
from ui.tabs import TABS

log = logger(__name__)

SEATS_AN_HOUR = 120
"""How many new seats an address gets; whoever wants more of them shares one with the address."""
OWN = frozenset({"/page.js", "/login", "/forget", "/healthz", "/readyz", "/metrics"})
BEFORE_SIGN_IN = frozenset(
    {"/login", "/login/huggingface", "/login/callback", "/healthz", "/readyz", "/metrics"}
    | {"/favicon.ico", "/gradio_api/startup-events"}  # the latter gradio asks of itself when it is launched
)
_PAGES = OWN | {
    "/", "/config", "/theme.css", "/favicon.ico", "/robots.txt", "/manifest.json", "/logout",
    *(f"/gradio_api/{name}" for name in (
        "app_id", "info", "openapi.json", "login_check", "queue/join", "queue/data", "upload", "upload_progress",
        "reset", "cancel", "startup-events", "theme.css", "token", "user",
    )),
}  # fmt: skip
_HEARTBEAT, _CANCEL = "/gradio_api/heartbeat/", "/gradio_api/cancel"
_FOLDERS = ("/static/", "/assets/", "/svelte/", _HEARTBEAT, "/gradio_api/file=")
_BY_NAME = re.compile(r"/gradio_api/(?P<way>call/v2|call|run|api)/(?P<name>[^/]+)(/[^/]*)?")
_TABS = frozenset(spec.id for spec in TABS)
# 'run/predict' is how the page itself calls what needs no place in line; all else by name goes through the queue.
_OPEN = {"call": _TABS, "call/v2": _TABS, "run": frozenset({"predict"}), "api": frozenset({"predict"})}
_CALLS = ("/gradio_api/run/", "/gradio_api/api/", "/gradio_api/call/", "/gradio_api/queue/join")
"""Where gradio itself falls over a body that fits no handler: no such one, too few values, a name that there is not."""
_FULL = "The disk of the server is full, so that nothing can be uploaded; tell its host. What you wrote is still there."
_UNFIT = "The request does not fit the endpoint; GET /gradio_api/info tells which values it takes."
_HOST = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[\w.-]+)(:\d{1,5})?")


class Doors:
    """ASGI middleware. Notes in a request's state who the `visitor` is.

    `hosts`: the names under which the playground may be reached, all where there are none; `frames`: the origins of
    pages that may show it.
    """

    def __init__(self, app: ASGIApp, people: People, hosts: tuple[str, ...] = (), frames: tuple[str, ...] = ()) -> None:
        self.app, self._people, self._frames = app, people, frames
        # No other site's name can lead here under a name of this machine.
        self._hosts = frozenset(map(_bare, hosts)) | THIS_MACHINE if hosts else frozenset()
        self._seats = FixedWindowRateLimiter(MemoryStorage())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        visitor = self._people.visitor(scope)
        scope.setdefault("state", {})["visitor"] = visitor
        body = Body(scope, receive)
        guarded = Guarded(send, self._frames, self._new_seat(scope, visitor))

        async def answer(message: Message) -> None:
            if body.fault is None or guarded.started:  # what the app says of a body that was cut off is not our answer
                await guarded.send(message)

        refusal = self._refusal(scope, visitor) or _fault(body)
        if refusal is None and scope["path"].rstrip("/") == _CANCEL:
            page = _page_in(await body.whole())
            refusal = _fault(body) or _not_theirs(scope, visitor, [page])
        if refusal is not None:
            await refusal(scope, receive, guarded.send)
            return
        try:
            await self.app(scope, body.receive, answer)
        except Exception as exc:
            full = isinstance(exc, OSError) and exc.errno == errno.ENOSPC
            if not (full or body.fault or scope["path"].startswith(_CALLS)):
                raise
            if body.fault is None:
                log.warning("no room on the disk" if full else "a request did not fit", exc_info=True)
                body.fault = (507, _FULL) if full else (400, _UNFIT)
            if guarded.started:  # the stream of an event that there is not ends so, after gradio has said it
                await guarded.send({"type": "http.response.body", "body": b""})
        if not guarded.started and (refusal := _fault(body)) is not None:
            await refusal(scope, receive, guarded.send)

    def _refusal(self, scope: Scope, visitor: Visitor) -> Response | None:
        headers, path = Headers(scope=scope), scope["path"].rstrip("/") or "/"
        host = _own_host(headers, self._people.proxies)
        named = _HOST.fullmatch(host)
        if named is None or (self._hosts and _bare(named[1]) not in self._hosts):
            return JSONResponse({"error": "The playground is not reached under this host name."}, 400)
        if not _is_open(path):
            return JSONResponse({"error": "There is no such endpoint."}, 404)
        if (origin := headers.get("origin")) is not None and _netloc(origin) != host:
            return JSONResponse({"error": "Other sites cannot call the playground."}, 403)
        if path not in BEFORE_SIGN_IN and not self._people.may_enter(visitor):
            if path == "/":
                return RedirectResponse("login", 303)
            return JSONResponse({"error": "Sign in first: open the playground's page, or POST to /login."}, 401)
        return _not_theirs(scope, visitor, _pages(path, scope.get("query_string", b"").decode("latin-1")))

    def _new_seat(self, scope: Scope, visitor: Visitor) -> list[str]:
        """The cookie for who opens the page, or lets a program open it, without one."""
        if visitor.seat or scope["path"] not in ("/", "/config"):
            return []
        address = self._people.address(scope)
        if not visitor.host and not self._seats.hit(RateLimitItemPerHour(SEATS_AN_HOUR), address):
            return []
        return [self._people.new_seat(scope)]


def _is_open(path: str) -> bool:
    if found := _BY_NAME.fullmatch(path):
        return found["name"] in _OPEN[found["way"]]
    return path in _PAGES or path.startswith(_FOLDERS) or path in BEFORE_SIGN_IN


def _pages(path: str, query: str) -> list[str]:
    """The session hashes of the pages that a request listens to; of several in a query every one might be meant."""
    if path == "/gradio_api/queue/data":
        return parse_qs(query).get("session_hash", [])
    return [path.removeprefix(_HEARTBEAT)] if path.startswith(_HEARTBEAT) else []


def _page_in(told: bytes) -> str:
    """The session hash of the page whose answer is to be cancelled; empty where gradio will refuse what it is told."""
    try:
        page = json.loads(told)["session_hash"]
    except (ValueError, LookupError, TypeError, RecursionError):
        return ""
    return page if isinstance(page, str) else ""


def _not_theirs(scope: Scope, visitor: Visitor, pages: list[str]) -> Response | None:
    if any(is_of_another(scope["app"].state_holder, page, visitor) for page in pages):
        return JSONResponse({"error": "This page is somebody else's."}, 403)
    return None


def _fault(body: Body) -> Response | None:
    if body.fault is None:
        return None
    status, sentence = body.fault
    return JSONResponse({"error": sentence}, status)


def _bare(host: str) -> str:
    """A name as it is compared: an address of IPv6 stands in brackets in a URL."""
    return host.lower().strip("[]")


def _own_host(headers: Headers, proxies: int) -> str:
    """The name that the visitor's browser knows us by; a proxy of our own may have been asked under another one."""
    forwarded = headers.get("x-forwarded-host", "").rpartition(",")[2].strip() if proxies else ""
    return forwarded or headers.get("host", "")


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
