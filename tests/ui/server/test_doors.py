"""What can be reached, by whom, from where, with how much, and under which headers: whatever is not open is closed."""

from __future__ import annotations

import asyncio
import json
import re
import secrets
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from html.parser import HTMLParser
from itertools import pairwise
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlsplit

import gradio as gr
import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.datastructures import QueryParams
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, Response

from backends.adapters.scripted import Script
from backends.catalog.cards import Card
from backends.core.types import GenerationRequest
from tests.patience import PATIENCE_S, eventually
from tests.served import Served, scripted_engine, serving
from ui.conversation.tabs import TABS
from ui.gradio_joint.lean_gradio import LeanBlocks
from ui.server import bodies, doors
from ui.server.content_policy import Guarded
from ui.server.doors import Doors
from ui.server.routes import GRADIO, Row, find
from ui.visitors.owners import NO_EVENT, page_of
from ui.visitors.people import COOKIE, People, SignIn, Visitor

LOCKED = SignIn(class_code="a secret")
SLOW = "slow"
EVIL = "https://evil.example"
GUARDS = ("content-security-policy", "referrer-policy", "x-content-type-options")


# --- the doors alone -----------------------------------------------------------------------------


@dataclass
class Answer:
    status: int = 0
    headers: list[tuple[str, str]] = field(default_factory=list)
    body: bytes = b""
    reads: int = 0

    @property
    def inside(self) -> bool:
        """Whether it came from what stands behind the doors."""
        return self.told("x-inside") == "yes"

    def told(self, name: str) -> str:
        return dict(self.headers).get(name, "")

    @property
    def error(self) -> str:
        return json.loads(self.body)["error"]


async def echo(scope: Any, receive: Any, send: Any) -> None:
    """Behind the doors: answers with what it was sent."""
    body = await Request(scope, receive).body()
    scope["state"].get("at_last", {}).update(scope)
    await Response(body, headers={"x-inside": "yes"})(scope, receive, send)


async def forgiving(scope: Any, receive: Any, send: Any) -> None:
    """As FastAPI does where a body cannot be read."""
    try:
        await echo(scope, receive, send)
    except ClientDisconnect:
        await Response("There was an error parsing the body", 400, headers={"x-inside": "yes"})(scope, receive, send)


def asked(
    at: Doors,
    path: str = "/",
    *headers: tuple[str, str],
    host: str | None = "here",
    query: str = "",
    body: tuple[bytes, ...] = (b"",),
    more: Callable[[], Any] | None = None,
    holder: Any = None,
    client: str = "203.0.113.7",
    method: str = "",
    at_last: dict[str, Any] | None = None,
) -> Answer:
    """What the doors answer. The body comes in pieces; `more` says what follows on them, nothing else ever does.
    `at_last` is told what the app was asked."""
    answer = Answer()
    named = [("host", host), *headers] if host is not None else [*headers]
    scope = {
        "type": "http",
        "http_version": "1.1",
        "method": method or usual_method(path),
        "scheme": "http",
        "path": path,
        "root_path": "",
        "query_string": query.encode("latin-1"),
        "headers": [(name.encode("latin-1"), value.encode("latin-1")) for name, value in named],
        "client": (client, 4711),
        "server": ("here", 80),
        "app": SimpleNamespace(state_holder=holder or keeping_of()),
    }
    if at_last is not None:
        scope["state"] = {"at_last": at_last}

    async def receive() -> Any:
        answer.reads += 1
        if answer.reads <= len(body):
            last = answer.reads == len(body) and more is None
            return {"type": "http.request", "body": body[answer.reads - 1], "more_body": not last}
        if more is None:
            await asyncio.Event().wait()
        return await more()

    async def send(message: Any) -> None:
        if message["type"] == "http.response.start":
            assert not answer.status, "answered twice"
            answer.status = message["status"]
            answer.headers = [(name.decode(), value.decode()) for name, value in message["headers"]]
        else:
            answer.body += message.get("body", b"")

    with ThreadPoolExecutor(1) as thread:  # this one may be running the event loop of the browser's tests
        thread.submit(asyncio.run, at(scope, receive, send)).result()
    return answer


def keeping_of(**pages: set[str]) -> Any:
    """What gradio keeps, as far as the doors ask: the events of each page whose end was not told yet."""
    return SimpleNamespace(blocks=SimpleNamespace(_queue=SimpleNamespace(pending_event_ids_session=pages)))


OWN = (
    *(Row(path, access="public") for path in ("/healthz", "/readyz", "/metrics")),
    Row("/page.js"),
    Row("/login", frozenset({"GET", "POST"}), "public"),
    Row("/forget", frozenset({"POST"})),
)
"""As ours declare themselves; what a running playground has is walked in test_routes.py."""
ROWS = (*OWN, *GRADIO)


def usual_method(path: str) -> str:
    row, _ = find(ROWS, path.rstrip("/") or "/", "POST")
    return "POST" if row is not None and "POST" in row.methods else "GET"


def front(people: People | None = None, app: Any = echo, **options: Any) -> Doors:
    return Doors(app, people or People(), ROWS, **options)


def filled(route: str) -> str:
    """A path that the route is for."""
    name = "predict" if route.startswith(("/gradio_api/run/", "/gradio_api/api/")) else "chat"
    return re.sub(r"{[^}]*}", "x", route.replace("{api_name}", name))


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.path)
def test_what_the_page_and_programs_need_is_open_to_its_own_methods(row: Row) -> None:
    people, at_last = People(), {}
    page, cookie = seated(people)
    holder = keeping_of(**{page: {"x"}})
    for method in ("GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "BREW"):
        answer = asked(front(people), filled(row.path), cookie, method=method, holder=holder, body=(b"{}",))
        others = {method for other in ROWS if other.path == row.path for method in other.methods}
        assert answer.inside == (method in others)
        if not answer.inside:
            assert (answer.status, answer.told("allow")) == (405, ", ".join(sorted(others)))
    assert not at_last


@pytest.mark.parametrize("path", [
    "/gradio_api/run/chat", "/gradio_api/api/chat", "/gradio_api/run/predict/x/y", "/gradio_api/call/predict",
    "/gradio_api/call/v2/predict", "/gradio_api/call/lambda", "/gradio_api/call/chat/x/y", "/gradio_api/call",
    "/gradio_api/call/", "/gradio_api/call/v2", "/gradio_api/run", "/gradio_api/file/etc/passwd", "/gradio_api/file",
    "/gradio_api/proxy=http://example.com", "/gradio_api/dev/reload", "/gradio_api/heartbeat", "/static", "/assets",
    "/GRADIO_API/info", "//config", "/login/x", "/login/huggingface/x", "/x/static/y", "/docs", "/openapi.json",
    "config", "/metrics/x", "/forget/x", "/.env", "/gradio_api/call/chat%2f", "/gradio_api/call/ chat",
    "/gradio_api/run/predict/x", "/gradio_api/api/predict/x",
])  # fmt: skip
def test_all_else_is_closed_to_everybody(path: str) -> None:
    answer = asked(front(People(alone=True)), path)
    assert (answer.status, answer.reads) == (404, 0)
    assert answer.error == "There is no such endpoint."


OPENED = re.compile(
    "|".join(
        re.sub(r"\\{(\w+)(:path)?\\}", lambda found: ".+" if found[2] else "[^/]+", re.escape(route))
        for route in (row.path for row in ROWS)
    )
)
PIECES = [
    "gradio_api", "call", "v2", "run", "api", "predict", "chat", "static", "login", "config", "queue", "join", "data",
    "monitoring", "file=", "file", "heartbeat", "svelte", "stream", "x", "..", ".", "", "%2e%2e", "\0", "info",
]  # fmt: skip


@given(pieces=st.lists(st.sampled_from(PIECES), max_size=6), slash=st.sampled_from(["/", "//", ""]))
def test_no_invented_path_leads_inside(pieces: list[str], slash: str) -> None:
    path = "/" + "/".join(pieces) + slash
    if asked(front(), path, body=(b"{}",)).status not in (404, 405):
        assert OPENED.fullmatch(path.rstrip("/") or "/")


@pytest.mark.parametrize("spec", TABS, ids=lambda spec: spec.id)
def test_every_tab_can_be_called(spec: Any) -> None:
    people = People()
    page, cookie = seated(people)
    holder = keeping_of(**{page: {"an-event"}})
    for way in ("call", "call/v2"):
        assert asked(front(people), f"/gradio_api/{way}/{spec.id}", body=(b"{}",)).inside
        assert asked(front(people), f"/gradio_api/{way}/{spec.id}/an-event", cookie, holder=holder).inside


# --- from where ----------------------------------------------------------------------------------


@pytest.mark.parametrize("origin", [
    EVIL, "null", "", "http://here.evil.example", "http://here:81", "http://here@evil.example", "http://[", "http://]",
    "here", "http://", "file://", "https://HERE.", "http://[::1", "chrome-extension://here2", "\xff",
])  # fmt: skip
@pytest.mark.parametrize("path", ["/", "/gradio_api/queue/join", "/login", "/forget", "/healthz"])
def test_another_site_cannot_call(origin: str, path: str) -> None:
    answer = asked(front(), path, ("origin", origin))
    assert (answer.status, answer.reads) == (403, 0)
    assert answer.error == "Other sites cannot call the playground."


@pytest.mark.parametrize(
    ("host", "origin"), [("here", "http://here"), ("here:7860", "https://here:7860"), ("[::1]:80", "http://[::1]:80")]
)
def test_our_own_page_can_call(host: str, origin: str) -> None:
    assert asked(front(), "/gradio_api/queue/join", ("origin", origin), host=host, body=(b"{}",)).inside


MALFORMED = ["", "evil.com/?x", "a b", "here/", "here?", "here#x", "user@here", "here:", "here:x", "here:123456",
             "[::1", "::1", "here,evil.com", "here:80:80", "http://here", "%61", "<b>", "[evil.com]"]  # fmt: skip


@pytest.mark.parametrize("host", [*MALFORMED, None])
def test_a_host_that_is_none_is_refused(host: str | None) -> None:
    answer = asked(front(), "/healthz", host=host)
    assert answer.status == 400
    assert answer.error == "The playground is not reached under this host name."


@pytest.mark.parametrize("host", ["here", "HERE:7860", "other.example", "localhost", "127.0.0.1:7860", "[::1]:7860"])
def test_among_trusted_hosts_are_those_of_this_machine_and_case_and_port_do_not_matter(host: str) -> None:
    assert asked(front(hosts=("here", "Other.Example")), host=host).inside


@pytest.mark.parametrize("host", ["evil.example", "here.evil.example", "evil.here", "127.0.0.1.nip.io", "[::2]"])
def test_a_host_that_is_not_trusted_is_refused(host: str) -> None:
    assert asked(front(hosts=("here",)), host=host).status == 400
    assert asked(front(), host=host).inside, "without trusted hosts every one is good"


@pytest.mark.parametrize("path", ["/", "/gradio_api/nothing", "/gradio_api/queue/join"])
def test_the_host_is_looked_at_before_all_else(path: str) -> None:
    answer = asked(front(People(sign_in=LOCKED), hosts=("here",)), path, ("origin", EVIL), host="evil.example")
    assert answer.status == 400


@pytest.mark.parametrize(("proxies", "status"), [(0, 400), (1, 200), (2, 200)])
def test_a_forwarded_host_counts_only_behind_a_proxy_of_ours(proxies: int, status: int) -> None:
    at = front(People(proxies=proxies), hosts=("playground.example",))
    headers = ("x-forwarded-host", "playground.example"), ("origin", "https://playground.example")
    assert asked(at, "/gradio_api/queue/join", *headers, host="10.0.0.5:7860", body=(b"{}",)).status == status


def test_of_several_forwarded_hosts_the_last_one_counts_and_none_may_be_malformed() -> None:
    at = front(People(proxies=1), hosts=("playground.example",))
    assert asked(at, "/", ("x-forwarded-host", "evil.example, playground.example"), host="x").inside
    assert asked(at, "/", ("x-forwarded-host", "playground.example, evil.example"), host="x").status == 400
    assert asked(at, "/", ("x-forwarded-host", "playground.example/?x"), host="localhost").status == 400
    assert asked(at, "/", ("x-forwarded-host", " "), host="localhost").inside, "where it says nothing the host counts"


def test_a_proxys_own_name_lets_no_other_site_in() -> None:
    at = front(People(proxies=1))
    headers = ("x-forwarded-host", "playground.example"), ("origin", "http://10.0.0.5:7860")
    assert asked(at, "/", *headers, host="10.0.0.5:7860").status == 403


# --- who -----------------------------------------------------------------------------------------


def test_before_sign_in_the_page_leads_to_the_door() -> None:
    answer = asked(front(People(sign_in=LOCKED)))
    assert (answer.status, answer.told("location"), answer.inside) == (303, "login", False)


@pytest.mark.parametrize(
    "row", [row for row in ROWS if row.access != "public" and row.path != "/"], ids=lambda r: r.path
)
def test_before_sign_in_all_else_is_refused_unread(row: Row) -> None:
    answer = asked(front(People(sign_in=LOCKED)), filled(row.path))
    assert (answer.status, answer.reads) == (401, 0)
    assert answer.error == "Sign in first: open the playground's page, or POST to /login."


@pytest.mark.parametrize("path", [row.path for row in ROWS if row.access == "public"])
def test_the_door_itself_and_the_health_are_open(path: str) -> None:
    assert asked(front(People(sign_in=LOCKED)), path).inside


def test_who_has_signed_in_goes_where_everybody_may() -> None:
    people = People(sign_in=LOCKED)
    scope = {"type": "http", "scheme": "http", "headers": [], "client": None}
    cookie = people.signed_in(scope, "a seat", "calm otter", "class").partition(";")[0]
    assert asked(front(people), "/", ("cookie", cookie)).inside
    assert asked(front(people), "/gradio_api/run/chat", ("cookie", cookie)).status == 404


def seats(at: Doors, number: int, client: str, *headers: tuple[str, str]) -> int:
    return sum("set-cookie" in dict(asked(at, "/", *headers, client=client).headers) for _ in range(number))


def test_an_address_gets_so_many_seats_an_hour_and_shares_one_after_that(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doors, "SEATS_AN_HOUR", 3)
    people = People()
    at = front(people)
    assert seats(at, 5, "203.0.113.7") == 3
    assert seats(at, 5, "203.0.113.8") == 3
    assert asked(at, "/").inside, "the page is for them all the same"
    mine = people.new_seat({"type": "http", "scheme": "http", "headers": []}).partition(";")[0]
    assert seats(at, 2, "203.0.113.9", ("cookie", mine)) == 0
    assert seats(at, 5, "203.0.113.9") == 3, "a seat that somebody has is no new one"


def test_a_forged_seat_counts_as_a_new_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doors, "SEATS_AN_HOUR", 3)
    assert seats(front(), 5, "203.0.113.7", ("cookie", f"{COOKIE}=forged")) == 3


def test_the_host_gets_as_many_seats_as_they_like(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doors, "SEATS_AN_HOUR", 3)
    assert seats(front(People(alone=True)), 5, "127.0.0.1") == 5


def test_behind_a_proxy_seats_are_counted_by_the_address_that_it_saw(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doors, "SEATS_AN_HOUR", 2)
    at = front(People(proxies=1))
    assert [seats(at, 3, "10.0.0.1", ("x-forwarded-for", f"{n}, 192.0.2.1")) for n in range(3)] == [2, 0, 0]
    assert seats(at, 3, "10.0.0.1", ("x-forwarded-for", "192.0.2.2")) == 2


# --- whose ---------------------------------------------------------------------------------------


def seated(people: People) -> tuple[str, tuple[str, str]]:
    """What 'a-page' means to somebody with a seat of their own, and their cookie."""
    cookie = people.new_seat({"type": "http", "scheme": "http", "headers": []}).partition(";")[0]
    visitor = people.visitor({"headers": [(b"cookie", cookie.encode())], "client": None})
    return page_of(visitor, "a-page"), ("cookie", cookie)


STREAMS = [
    ("/gradio_api/queue/data", "session_hash=a-page"),
    ("/gradio_api/queue/data/", "session_hash=a-page"),
    ("/gradio_api/queue/data", "x=1&session_hash=a%2Dpage"),
    ("/gradio_api/queue/data", "session_hash=mine&session_hash=a-page"),
    ("/gradio_api/queue/data", "session_hash=&session_hash=a-page"),
    ("/gradio_api/upload_progress", "upload_id=a-page"),
    ("/gradio_api/heartbeat/a-page", ""),
    ("/gradio_api/heartbeat/a-page/", ""),
    ("/gradio_api/heartbeat/a-page", "session_hash=mine"),
    ("/gradio_api/heartbeat/a-page", "session_hash="),
]


@pytest.mark.parametrize(("path", "query"), STREAMS)
def test_the_same_word_means_another_page_to_everybody(path: str, query: str) -> None:
    people, meant = People(), []
    (mine, me), (theirs, they) = (seated(people) for _ in range(2))
    for headers in ([me], [they], []):
        at_last: dict[str, Any] = {}
        assert asked(front(people), path, *headers, query=query, at_last=at_last).inside
        if "heartbeat" in path:
            meant.append(at_last["path"].removeprefix("/gradio_api/heartbeat/"))
        else:
            read = QueryParams(at_last["query_string"])  # as gradio reads it
            meant.append(read["upload_id" if "upload" in path else "session_hash"])
    assert meant[:2] == [mine, theirs]
    assert len(set(meant)) == 3
    assert not any(page in ("a-page", "mine", "") for page in meant)


SAID = [
    b'{"session_hash": "a-page", "fn_index": 1, "event_id": "x"}',
    b'{"session_hash": "mine", "session_hash": "a-page", "event_id": "y", "event_id": "x"}',
    b' {"session\\u005fhash": "a\\u002dpage", "event_id": "\\u0078"} ',
    '{"session_hash": "a-page", "event_id": "x"}'.encode("utf-16"),
    '{"session_hash": "a-page", "event_id": "x"}'.encode("utf-32"),
    b'\xef\xbb\xbf{"session_hash": "a-page", "event_id": "x"}',
]
SAYING = [row.path for row in GRADIO if row.body == "json"]


@pytest.mark.parametrize("told", SAID)
@pytest.mark.parametrize("path", SAYING)
def test_so_it_does_in_a_body_however_it_is_written_and_cut(path: str, told: bytes) -> None:
    people = People()
    (mine, me), (theirs, they) = (seated(people) for _ in range(2))
    holder = keeping_of(**{mine: {"x"}, theirs: {"z"}})
    for pieces in ((told,), (told[:9], b"", told[9:])):
        for headers, page, event in (([me], mine, "x"), ([they], theirs, NO_EVENT)):
            answer = asked(front(people), filled(path), *headers, body=pieces, holder=holder)
            said = json.loads(answer.body)
            assert (answer.inside, said["session_hash"], said["event_id"]) == (True, page, event)


@given(
    told=st.dictionaries(
        st.text(max_size=5) | st.sampled_from(["data", "session_hash", "event_id"]),
        st.recursive(st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(), st.lists),
        max_size=4,
    )
)
def test_all_else_of_a_body_arrives_as_it_was_sent(told: dict[str, Any]) -> None:
    answer = asked(front(), "/gradio_api/queue/join", body=(json.dumps(told).encode(),))
    said = json.loads(answer.body)
    for name in ("session_hash", "event_id"):
        if isinstance(told.get(name), str):
            assert said.pop(name) != told.pop(name)
    assert said == told


@given(told=st.binary(max_size=50) | st.from_regex(rb'[\[{]"?session_hash"?[:,] ?["\[{0-9a-z]*\]?}?', fullmatch=True))
@pytest.mark.parametrize("path", SAYING)
def test_what_is_no_json_is_refused_where_json_is_asked_for(path: str, told: bytes) -> None:
    answer = asked(front(), filled(path), body=(told,))
    if not answer.inside:
        assert (answer.status, "does not fit" in answer.error) == (422, True)
        with pytest.raises(ValueError):  # noqa: PT011
            json.loads(told)


@pytest.mark.parametrize("told", [b"[" * 100_000, b'{"session_hash": ' + b"[" * 100_000, b"9" * 5000])
def test_json_as_deep_and_as_long_as_python_can_count_does_no_harm(told: bytes) -> None:
    assert asked(front(), "/gradio_api/cancel", body=(told,)).status == 422


@pytest.mark.parametrize("way", ["call", "call/v2"])
def test_an_event_is_told_to_who_began_it_until_its_end_and_to_nobody_else(way: str) -> None:
    people = People()
    (mine, me), (theirs, they) = (seated(people) for _ in range(2))
    pending = keeping_of(**{mine: {"x"}, theirs: set()})
    for name in ("x", mine, "a-page", "invented", NO_EVENT, "", "x/"):
        answers = []
        for headers in ([me], [they], []):
            answer = asked(front(people), f"/gradio_api/{way}/chat/{name}", *headers, holder=pending)
            assert answer.inside == (name in ("x", "x/") and headers == [me])
            if not answer.inside:
                answers.append((answer.status, answer.body))
        assert len(set(answers)) == 1, "an event of somebody else, one that has ended and an invented one are the same"
    assert asked(front(people), f"/gradio_api/{way}/chat/x", me, holder=keeping_of(**{mine: set()})).status == 404


def test_who_has_no_seat_is_told_what_was_begun_from_their_address() -> None:
    people = People()
    page = page_of(Visitor("address 203.0.113.7"), "a-page")
    for client, status in (("203.0.113.7", 200), ("203.0.113.8", 404)):
        answer = asked(front(people), "/gradio_api/call/chat/x", client=client, holder=keeping_of(**{page: {"x"}}))
        assert answer.status == status


def test_nothing_but_http_is_spoken() -> None:
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    with ThreadPoolExecutor(1) as thread:
        thread.submit(asyncio.run, front()({"type": "websocket", "path": "/"}, None, send)).result()  # type: ignore[arg-type]
    assert sent == [{"type": "websocket.close"}]


# --- how much ------------------------------------------------------------------------------------

PATHS = ["/gradio_api/queue/join", "/gradio_api/call/chat", "/gradio_api/run/predict", "/gradio_api/upload", "/login"]
APPS = pytest.mark.parametrize("app", [echo, forgiving], ids=lambda app: app.__name__)


def most(path: str) -> int:
    return bodies.MOST_UPLOAD if path == "/gradio_api/upload" else bodies.MOST_JSON


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bodies, "MOST_JSON", 1000)
    monkeypatch.setattr(bodies, "MOST_UPLOAD", 2000)


@pytest.mark.parametrize("path", PATHS)
def test_a_body_that_says_it_is_too_large_is_not_read(path: str) -> None:
    answer = asked(front(), path, ("content-length", str(most(path) + 1)))
    assert (answer.status, answer.reads) == (413, 0)
    assert f"larger than the {most(path) // 2**20} MiB" in answer.error
    assert asked(front(), path, ("content-length", str(most(path))), body=(b"{}",)).inside


@pytest.mark.parametrize("length", ["-1", "x", "", "1.5", "1e3", "0x10", " 1", "1, 1", "²", "\xb2\xb3", "NaN"])
def test_a_length_that_is_no_number_is_refused(length: str) -> None:
    answer = asked(front(), "/login", ("content-length", length))
    assert (answer.status, answer.reads) == (400, 0)
    assert answer.error == "The length of the request is not a number."


@pytest.mark.parametrize("digits", [20, 4300, 5000, 60_000])
def test_a_length_beyond_all_numbers_is_too_large(digits: int) -> None:
    assert asked(front(), "/login", ("content-length", "9" * digits)).status == 413


@APPS
@pytest.mark.parametrize("path", PATHS)
def test_a_body_of_unknown_length_is_read_up_to_the_limit(small: None, app: Any, path: str) -> None:
    pieces = (b"x" * 100,) * 1000
    answer = asked(front(app=app), path, body=pieces)
    assert (answer.status, answer.inside) == (413, False)
    assert answer.reads == most(path) // 100 + 1


@APPS
def test_a_body_larger_than_it_said_is_cut_off(small: None, app: Any) -> None:
    answer = asked(front(app=app), "/login", ("content-length", "10"), body=(b"x" * 1001,))
    assert (answer.status, answer.inside) == (413, False)


def test_slashes_make_no_upload_of_something_else(small: None) -> None:
    assert asked(front(), "/gradio_api/upload/", body=(b"x" * 2000,)).inside
    assert asked(front(), "/gradio_api/call/chat", body=(b"x" * 1500,)).status == 413


@APPS
def test_a_body_that_stops_coming_is_given_up(monkeypatch: pytest.MonkeyPatch, app: Any) -> None:
    monkeypatch.setattr(bodies, "PIECE_SECONDS", 0.02)
    answer = asked(front(app=app), "/login", body=(b"some",), more=asyncio.Event().wait)
    assert (answer.status, answer.inside) == (408, False)
    assert answer.error == "The request took too long to arrive. Send it again."


@APPS
def test_a_body_that_drips_is_given_up(monkeypatch: pytest.MonkeyPatch, app: Any) -> None:
    monkeypatch.setattr(bodies, "WHOLE_SECONDS", 0.1)

    async def drip() -> Any:
        await asyncio.sleep(0.01)
        return {"type": "http.request", "body": b"x", "more_body": True}

    answer = asked(front(app=app), "/login", more=drip)
    assert (answer.status, answer.inside) == (408, False)


def test_a_visitor_who_hangs_up_in_the_middle_is_no_fault_of_theirs() -> None:
    async def gone() -> Any:
        return {"type": "http.disconnect"}

    with pytest.raises(ClientDisconnect):
        asked(front(), "/login", body=(b"some",), more=gone)


def test_what_fails_inside_is_not_hidden() -> None:
    async def broken(scope: Any, receive: Any, send: Any) -> None:
        raise LookupError("a fault of the app")

    with pytest.raises(LookupError):
        asked(front(app=broken))


def test_a_body_that_nobody_reads_does_no_harm(small: None) -> None:
    async def deaf(scope: Any, receive: Any, send: Any) -> None:
        await Response(headers={"x-inside": "yes"})(scope, receive, send)

    answer = asked(front(app=deaf), "/forget", body=(b"x" * 5000,))
    assert (answer.inside, answer.reads) == (True, 0)


@given(pieces=st.lists(st.binary(max_size=200), min_size=1, max_size=10))
def test_a_body_within_the_limits_arrives_byte_for_byte(pieces: list[bytes]) -> None:
    answer = asked(front(), "/gradio_api/upload", body=tuple(pieces))
    assert answer.inside
    assert answer.body == b"".join(pieces)
    assert answer.reads == len(pieces)


# --- the headers ---------------------------------------------------------------------------------


def nonce_of(policy: str) -> str:
    return re.search(r"'nonce-([\w-]+)'", policy)[1]


def test_every_answer_goes_out_under_the_same_headers(small: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bodies, "PIECE_SECONDS", 0.02)
    locked, picky = front(People(sign_in=LOCKED)), front(hosts=("here",))
    answers = [
        asked(front()),
        asked(front(), "/healthz"),
        asked(front(), "/nothing"),
        asked(front(), "/", ("origin", EVIL)),
        asked(front(), "/", host=""),
        asked(picky, "/", host="evil.example"),
        asked(locked),
        asked(locked, "/config"),
        asked(front(), "/gradio_api/call/chat/an-event"),
        asked(front(), "/healthz", method="POST"),
        asked(front(), "/login", ("content-length", "x")),
        asked(front(), "/login", ("content-length", "5000")),
        asked(front(), "/login", body=(b"x" * 5000,)),
        asked(front(), "/login", body=(b"x",), more=asyncio.Event().wait),
        asked(front(app=forgiving), "/login", body=(b"x" * 5000,)),
    ]
    assert [a.status for a in answers] == [200, 200, 404, 403, 400, 400, 303, 401, 404, 405, 400, 413, 413, 408, 413]
    for answer in answers:
        policy, referrer, kind = (answer.told(name) for name in GUARDS)
        assert (referrer, kind) == ("same-origin", "nosniff")
        assert "default-src 'self'" in policy
        assert "object-src 'none'" in policy
        assert "'unsafe-inline'" not in policy.partition("script-src")[2].partition(";")[0]
    assert len({nonce_of(answer.told(GUARDS[0])) for answer in answers}) == len(answers)


@pytest.mark.parametrize(
    ("frames", "ancestors"), [((), "'none'"), (("https://a.example", "https://b.example:8443"),) * 2]
)
def test_only_the_pages_that_the_host_names_may_show_it(frames: tuple[str, ...], ancestors: Any) -> None:
    expected = ancestors if isinstance(ancestors, str) else " ".join(ancestors)
    for path in ("/", "/nothing"):
        policy = asked(front(frames=frames), path).told("content-security-policy")
        assert policy.partition("frame-ancestors ")[2] == expected


HTML = (
    "<!doctype html><script>one()</script>é<script\nsrc='a.js'></script><scripture>no</scripture>"
    "<script type=module>two()</script>" + "x" * 50
).encode()


def guarded(content_type: str, pieces: list[bytes]) -> tuple[str, dict[str, str], bytes]:
    """(nonce, headers, body) of an answer that an app gave in pieces."""
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def answer() -> None:
        out = Guarded(send, (), [])
        headers = [(b"content-type", content_type.encode()), (b"content-length", str(sum(map(len, pieces))).encode())]
        await out.send({"type": "http.response.start", "status": 200, "headers": headers})
        for number, piece in enumerate(pieces):
            more = number + 1 < len(pieces)
            await out.send({"type": "http.response.body", "body": piece, "more_body": more})

    with ThreadPoolExecutor(1) as thread:
        thread.submit(asyncio.run, answer()).result()
    headers = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
    assert [message["type"] for message in sent].count("http.response.start") == 1
    return nonce_of(headers[GUARDS[0]]), headers, b"".join(message["body"] for message in sent[1:])


@given(cuts=st.lists(st.integers(0, len(HTML)), max_size=6))
def test_scripts_of_a_page_are_known_however_it_is_cut_into_pieces(cuts: list[int]) -> None:
    places = [0, *sorted(cuts), len(HTML)]
    nonce, headers, page = guarded("text/html; charset=utf-8", [HTML[a:b] for a, b in pairwise(places)])
    assert page.count(f"<script nonce={nonce}".encode()) == 3
    assert page.replace(f" nonce={nonce}".encode(), b"") == HTML
    assert headers["content-length"] == str(len(page))


@given(pieces=st.lists(st.binary() | st.just(HTML), min_size=1, max_size=5))
@pytest.mark.parametrize("content_type", ["application/json", "application/octet-stream", "text/javascript", ""])
def test_what_is_no_page_goes_out_byte_for_byte(content_type: str, pieces: list[bytes]) -> None:
    _, headers, body = guarded(content_type, pieces)
    assert body == b"".join(pieces)
    assert headers["content-length"] == str(len(body))


def test_an_empty_page_goes_out_too() -> None:
    _, headers, page = guarded("text/html", [b""])
    assert (headers["content-length"], page) == ("0", b"")


def test_a_page_with_cookies_keeps_its_headers() -> None:
    async def page(scope: Any, receive: Any, send: Any) -> None:
        answer = HTMLResponse("<p>", headers={"set-cookie": "a=b", "content-security-policy": "default-src *"})
        await answer(scope, receive, send)

    answer = asked(front(app=page))
    assert [value.partition("=")[0] for name, value in answer.headers if name == "set-cookie"] == ["a", COOKIE]
    assert [value for name, value in answer.headers if name == GUARDS[0]] == [answer.told(GUARDS[0])]
    assert "*" not in answer.told(GUARDS[0])


# --- in front of gradio --------------------------------------------------------------------------


@pytest.fixture(scope="module")
def app(card: Card) -> Iterator[Served]:
    with serving(scripted_engine(card, script)) as served:
        yield served


def script(request: GenerationRequest) -> Script:
    slow = request.messages[-1].text == SLOW
    return Script(answer=("word ",) * 10_000, interval_s=0.02) if slow else Script(answer=("yes",))


@pytest.mark.parametrize("path", ["", "config", "gradio_api/info", "healthz", "page.js", "nothing"])
@pytest.mark.parametrize("origin", [EVIL, "null", "http://localhost:1", "http://["])
def test_no_other_site_is_told_that_it_may_read(app: Served, path: str, origin: str) -> None:
    answer = httpx.get(app.url + path, headers={"origin": origin})
    assert answer.status_code == 404 if path == "nothing" else 403
    assert "access-control-allow-origin" not in answer.headers


@pytest.mark.parametrize("origin", [EVIL, "null", "http://localhost:1", "http://["])
def test_no_other_site_is_told_that_it_may_write(app: Served, origin: str) -> None:
    asks = {"origin": origin, "access-control-request-method": "POST", "access-control-request-headers": "content-type"}
    answer = httpx.options(app.url + "gradio_api/queue/join", headers=asks)
    assert answer.status_code < 500
    assert "access-control-allow-origin" not in answer.headers


def test_a_host_without_a_name_is_nobodys_origin(app: Served) -> None:
    asks = {"origin": "null", "host": "", "access-control-request-method": "POST"}
    assert "access-control-allow-origin" not in httpx.options(app.url + "config", headers=asks).headers


def test_our_own_page_may_call(app: Served) -> None:
    own = app.url.rstrip("/")
    answer = httpx.get(app.url + "config", headers={"origin": own})
    assert answer.status_code == 200
    assert answer.headers["access-control-allow-origin"] == own


@pytest.mark.parametrize("host", ["evil.com/?x", "a b"])
def test_gradio_never_sees_a_host_that_is_none(app: Served, host: str) -> None:
    assert httpx.get(app.url, headers={"host": host}).status_code == 400


class Scripts(HTMLParser):
    """The scripts of a page: what is said of each, and what each says."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[dict[str, str | None]] = []
        self.texts: list[str] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "script":
            self.tags.append(dict(attrs))
            self.texts.append("")

    def handle_data(self, data: str) -> None:
        if self.cdata_elem == "script":
            self.texts[-1] += data


def test_the_scripts_of_the_page_are_told_from_all_others(app: Served) -> None:
    nonces = []
    for _ in range(2):
        answer = httpx.get(app.url)
        nonce = nonce_of(answer.headers["content-security-policy"])
        scripts = Scripts(answer.text)
        assert len(scripts.tags) > 3
        assert {tag.get("nonce") for tag in scripts.tags} == {nonce}
        (config,) = (text for text in scripts.texts if text.startswith("window.gradio_config"))
        read = json.loads(config.partition("=")[2].strip().rstrip(";"))
        assert scripts.tags[0]["src"] == "page.js", "it has to run before any of gradio's"
        assert [read["title"], read["mode"]] == ["Qwen playground", "blocks"]
        assert read["dependencies"]
        nonces.append(nonce)
    assert nonces[0] != nonces[1]


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "", 200),
        ("HEAD", "", 200),
        ("GET", "page.js", 200),
        ("GET", "config", 200),
        ("GET", "static/nothing.js", 404),
        ("GET", "gradio_api/file=/etc/passwd", 403),
        ("GET", "gradio_api/queue/join", 405),
        ("POST", "gradio_api/queue/join", 422),
        ("GET", "monitoring", 404),
    ],
)
def test_gradios_own_answers_go_out_under_our_headers(app: Served, method: str, path: str, status: int) -> None:
    answer = httpx.request(method, app.url + path)
    assert answer.status_code == status
    assert all(answer.headers.get(name) for name in GUARDS)


def test_a_page_that_somebody_uploaded_is_not_shown(app: Served) -> None:
    page = ("x.html", b"<script>steal()</script>", "text/html")
    with httpx.Client(base_url=app.url) as client:
        (path,) = client.post("gradio_api/upload", files={"files": page}).json()
        answer = client.get(f"gradio_api/file={path}")
    assert answer.headers["content-disposition"].startswith("attachment")
    assert "nonce" not in answer.text


def in_pieces(number: int) -> Iterator[bytes]:
    yield b'{"data": ["'
    for _ in range(number):
        yield b"x" * 100
    yield b'"]}'


BY_JSON = ["gradio_api/queue/join", "gradio_api/run/predict", "gradio_api/call/chat", "gradio_api/call/v2/chat",
           "gradio_api/cancel", "gradio_api/reset"]  # fmt: skip


@pytest.mark.parametrize("path", BY_JSON)
def test_json_without_an_end_is_cut_off(app: Served, small: None, path: str) -> None:
    kind = {"content-type": "application/json"}
    answer = httpx.post(app.url + path, content=in_pieces(30), headers=kind, timeout=PATIENCE_S)
    assert answer.status_code == 413
    assert "Send less." in answer.json()["error"]


def test_a_form_without_an_end_is_cut_off(app: Served, small: None) -> None:
    kind = {"content-type": "application/x-www-form-urlencoded"}
    assert httpx.post(app.url + "login", content=in_pieces(30), headers=kind).status_code == 413


def test_an_upload_without_an_end_is_cut_off(app: Served, small: None) -> None:
    def upload() -> Iterator[bytes]:
        yield b'--b\r\ncontent-disposition: form-data; name="files"; filename="x.png"\r\n\r\n'
        yield from in_pieces(30)
        yield b"\r\n--b--\r\n"

    kind = {"content-type": "multipart/form-data; boundary=b"}
    assert httpx.post(app.url + "gradio_api/upload", content=upload(), headers=kind).status_code == 413


def raw(url: str, path: str, length: int, begun: bytes = b"") -> bytes:
    """What comes back where so much was announced and only the beginning was sent."""
    place = urlsplit(url)
    head = f"POST /{path} HTTP/1.1\r\nhost: {place.netloc}\r\ncontent-type: application/json\r\nconnection: close\r\n"
    with socket.create_connection((place.hostname, place.port), PATIENCE_S) as line:
        line.sendall(f"{head}content-length: {length}\r\n\r\n".encode() + begun)
        return line.recv(4096)


@pytest.mark.parametrize("path", BY_JSON)
def test_who_announces_too_much_is_answered_before_they_send_it(app: Served, path: str) -> None:
    assert raw(app.url, path, bodies.MOST_JSON + 1).startswith(b"HTTP/1.1 413")


@pytest.mark.parametrize("path", BY_JSON)
def test_who_stops_sending_is_answered(app: Served, monkeypatch: pytest.MonkeyPatch, path: str) -> None:
    monkeypatch.setattr(bodies, "PIECE_SECONDS", 0.1)
    assert raw(app.url, path, 100, b'{"data"').startswith(b"HTTP/1.1 408")


# --- somebody else's page ------------------------------------------------------------------------


@dataclass(frozen=True)
class Two:
    """Two people and a program without a seat. `ran`: the pages for which either of two functions has run, one that is
    called directly and one that is queued."""

    owner: httpx.Client
    other: httpx.Client
    nobody: httpx.Client
    ran: list[str | None]
    direct: int
    queued: int

    def call(self, client: httpx.Client, page: str) -> str | None:
        """The page for which it has run."""
        body = {"fn_index": self.direct, "data": [], "session_hash": page}
        client.post("gradio_api/run/predict", json=body).raise_for_status()
        return self.ran[-1]

    def join(self, client: httpx.Client, page: str) -> str:
        """The event."""
        body = {"fn_index": self.queued, "data": [], "session_hash": page}
        event: str = client.post("gradio_api/queue/join", json=body).raise_for_status().json()["event_id"]
        return event

    def told(self, client: httpx.Client, page: str) -> list[Any]:
        """Everything that is told to a page until the stream ends."""
        text = client.get("gradio_api/queue/data", params={"session_hash": page}).text
        return [json.loads(line.removeprefix("data: ")) for line in text.splitlines() if line]


@pytest.fixture
def two(app: Served, monkeypatch: pytest.MonkeyPatch) -> Iterator[Two]:
    ran: list[str | None] = []

    def recorded(request: gr.Request) -> None:
        ran.append(request.session_hash)

    functions = app.blocks.fns.values()
    direct = next(function for function in functions if function.name == "stop")
    queued = next(function for function in functions if function.name == "leave")
    assert (direct.queue, queued.queue) == (False, True)
    for function in (direct, queued):
        monkeypatch.setattr(function, "fn", recorded)
    with ExitStack() as stack:
        people = [stack.enter_context(httpx.Client(base_url=app.url, timeout=PATIENCE_S)) for _ in range(3)]
        for person in people[:2]:
            assert person.get("config").cookies
        yield Two(*people, ran, direct._id, queued._id)


@pytest.fixture
def page() -> str:
    """One that only this test opens."""
    return secrets.token_hex(8)


def test_under_one_name_everybody_has_a_page_of_their_own(app: Served, two: Two, page: str) -> None:
    pages = [two.call(client, page) for client in (two.owner, two.other, two.nobody)]
    assert len(set(pages)) == 3
    assert [two.call(client, page) for client in (two.owner, two.other, two.nobody)] == pages
    assert set(pages) <= set(app.blocks.app.state_holder.session_data)


def test_what_a_stranger_queues_for_a_page_leaves_no_trace_in_its_stream(two: Two, page: str) -> None:
    mine = two.call(two.owner, page)
    theirs = [two.join(stranger, page) for stranger in (two.other, two.nobody)]
    event = two.join(two.owner, page)
    told = two.told(two.owner, page)
    assert {message["event_id"] for message in told} - {None} == {event}
    assert [message["msg"] for message in told[-2:]] == ["process_completed", "close_stream"]
    assert told[-2]["success"]
    for stranger, begun in zip((two.other, two.nobody), theirs, strict=True):
        assert {message["event_id"] for message in two.told(stranger, page)} - {None} == {begun}
    assert two.ran.count(mine) == 2


@pytest.mark.parametrize("path", ["gradio_api/heartbeat/{}", "gradio_api/heartbeat/{}?session_hash=mine"])
def test_nobody_closes_somebody_elses_page(app: Served, two: Two, page: str, path: str) -> None:
    session = app.blocks.app.state_holder.session_data[two.call(two.owner, page)]
    for stranger, others in ((two.other, two.call(two.other, page)), (two.nobody, two.call(two.nobody, page))):
        with stranger.stream("GET", path.format(page)) as told:
            assert next(told.iter_lines()) == "data: ALIVE"
        eventually(lambda others=others: app.blocks.app.state_holder.session_data[others].is_closed)
        assert not session.is_closed
    with two.owner.stream("GET", path.format(page)) as told:
        assert next(told.iter_lines()) == "data: ALIVE"
    eventually(lambda: session.is_closed)


def test_a_session_of_gradios_is_for_its_owner_alone_whichever_way_it_was_named(two: Two, page: str) -> None:
    """If a route of gradio's named one in a way that the doors do not know of."""
    own, others = two.call(two.owner, page), two.call(two.other, page)
    assert own is not None
    assert others is not None
    for session, asked_by in ((own, others), (others, own)):
        request = SimpleNamespace(
            session_hash=session, request=SimpleNamespace(state=SimpleNamespace(visitor=Visitor(asked_by)))
        )
        with pytest.raises(PermissionError), ThreadPoolExecutor(1) as thread:
            thread.submit(asyncio.run, LeanBlocks.process_api(None, request=request)).result()  # type: ignore[arg-type]


def test_the_owner_takes_their_page_along_but_not_without_their_cookie(app: Served, two: Two, page: str) -> None:
    own = two.call(two.owner, page)
    with httpx.Client(base_url=app.url, cookies=two.owner.cookies) as elsewhere:
        assert two.call(elsewhere, page) == own
    two.owner.cookies.clear()
    assert two.call(two.owner, page) != own


# --- how much together ---------------------------------------------------------------------------

UPLOAD, KEPT = "/gradio_api/upload", "/gradio_api/queue/join"
PIECE = b'"' + b"x" * 598 + b'"'  # JSON, and an upload


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """3,000 bytes are allowed together, for uploads and for what pages keep."""
    monkeypatch.setattr(bodies, "MOST_UPLOADS", 3000)
    monkeypatch.setattr(bodies, "MOST_KEPT", 3000)


def sent(at: Doors, path: str, times: int, *headers: tuple[str, str], **more: Any) -> list[int]:
    return [asked(at, path, *headers, body=(PIECE,), **more).status for _ in range(times)]


@pytest.mark.parametrize("path", [UPLOAD, KEPT, "/gradio_api/run/predict", "/gradio_api/api/predict"])
def test_what_a_person_sends_is_counted_together(few: None, path: str) -> None:
    people = People()
    at = front(people)
    (_, me), (_, they) = (seated(people) for _ in range(2))
    assert sent(at, path, 7, me) == [200] * 5 + [429] * 2
    assert sent(at, path, 6, they) == [200] * 5 + [429], "and another's is another's"
    assert sent(at, path, 6) == [200] * 5 + [429], "who has no seat is an address"
    other = KEPT if path == UPLOAD else UPLOAD
    assert sent(at, other, 1, me) == [200], "files and conversations lie in different places"


@pytest.mark.parametrize("path", [UPLOAD, KEPT])
def test_who_has_sent_too_much_is_told_when_it_may_go_on(few: None, monkeypatch: pytest.MonkeyPatch, path: str) -> None:
    monkeypatch.setattr(bodies, "MOST_UPLOADS", 5 * 2**20)
    monkeypatch.setattr(bodies, "MOST_KEPT", 5 * 2**20)
    at, minutes = front(), bodies.FORGET_MINUTES if path == UPLOAD else 60
    large = (b'"' + b"x" * (5 * 2**20 - 2) + b'"',)
    assert asked(at, path, body=large).status == 200
    refused = asked(at, path, ("content-length", "600"), body=(PIECE,))
    assert (refused.status, refused.reads) == (429, 0), "what says how much it is is not read"
    assert refused.error == (
        f"You have sent the 5 MiB that are allowed within {minutes} minutes. Wait {minutes} minutes and send it again."
    )
    assert 0 < int(refused.told("retry-after")) <= minutes * 60
    later = time.time() + minutes * 60 + 1
    monkeypatch.setattr(time, "time", lambda: later)
    assert sent(at, path, 1) == [200], "by then it is forgotten"


def test_of_many_seats_at_one_address_the_sum_is_counted_too(few: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bodies, "PEOPLE_AT_AN_ADDRESS", 2)
    people = People()
    at = front(people)
    answers = [status for _ in range(3) for status in sent(at, UPLOAD, 5, seated(people)[1])]
    assert answers == [200] * 10 + [429] * 5
    assert sent(at, UPLOAD, 1, client="203.0.113.8") == [200]


def test_many_uploads_at_once_give_no_more_room(few: None) -> None:
    """Each is counted as it comes, whatever it has said of its length."""
    at = front(app=forgiving)
    pieces = (b"x" * 100,) * 20
    first = asked(at, UPLOAD, body=pieces)
    second = asked(at, UPLOAD, body=pieces)
    assert (first.status, second.status) == (200, 429)
    assert second.reads == 11


def test_a_call_of_an_endpoint_keeps_nothing_and_counts_for_nothing(few: None) -> None:
    assert sent(front(), "/gradio_api/call/chat", 20) == [200] * 20


def test_gradio_stores_no_more_than_one_person_may_send(app: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bodies, "MOST_UPLOADS", 3 * 2**20)
    picture = {"files": ("cat.png", secrets.token_bytes(2**20))}
    with httpx.Client(base_url=app.url, timeout=PATIENCE_S) as client:
        assert client.post("config").cookies
        answers = [client.post("gradio_api/upload", files=picture) for _ in range(4)]
    assert [answer.status_code for answer in answers] == [200, 200, 429, 429]
    assert answers[-1].json()["error"].startswith("You have sent the 3 MiB that are allowed within")
