"""Every route of the running app, gradio's included: who gets what from it. One that stands in no table fails here."""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest

from backends.adapters.scripted import Script
from backends.catalog.cards import Card
from backends.core.types import GenerationRequest
from tests.patience import PATIENCE_S, eventually
from tests.served import Served, scripted_engine, serving
from ui.server.routes import GRADIO, find
from ui.visitors.people import People, SignIn

CODE = "open sesame"
SLOW = "slow"
API = "/gradio_api"

ALL = "everybody, before they sign in too"
IN = "everybody who may enter"
OWN = "its owner; to others it is as if it had been invented"
CLOSED = "nobody"

EXPECTED = {
    # ours
    "GET /healthz": ALL,
    "GET /readyz": ALL,
    "GET /metrics": ALL,
    "GET /login": ALL,
    "POST /login": ALL,
    "GET /page.js": IN,
    "POST /forget": OWN,
    # gradio's: the page
    "GET /": IN,
    "HEAD /": IN,
    "GET /config": IN,
    "GET /theme.css": IN,
    "GET /favicon.ico": ALL,
    "GET /robots.txt": IN,
    "GET /manifest.json": IN,
    "GET /logout": IN,
    "GET /static/{path:path}": IN,
    "GET /assets/{path:path}": IN,
    "GET /svelte/{path:path}": IN,
    f"GET {API}/app_id": IN,
    f"GET {API}/info": IN,
    f"GET {API}/openapi.json": IN,
    f"GET {API}/login_check": IN,
    f"GET {API}/theme.css": IN,
    f"GET {API}/token": IN,
    f"GET {API}/user": IN,
    f"GET {API}/startup-events": ALL,
    f"GET {API}/file={{path_or_url:path}}": IN,  # the name of an uploaded file holds a hash with a secret
    f"HEAD {API}/file={{path_or_url:path}}": IN,
    # gradio's: what names a session, an event or an upload
    f"POST {API}/upload": OWN,
    f"GET {API}/upload_progress": OWN,
    f"GET {API}/heartbeat/{{session_hash}}": OWN,
    f"POST {API}/queue/join": OWN,
    f"GET {API}/queue/data": OWN,
    f"POST {API}/cancel": OWN,
    f"POST {API}/reset": OWN,
    f"POST {API}/run/{{api_name}}": OWN,
    f"POST {API}/api/{{api_name}}": OWN,
    f"POST {API}/call/{{api_name}}": OWN,
    f"POST {API}/call/v2/{{api_name}}": OWN,
    f"GET {API}/call/{{api_name}}/{{event_id}}": OWN,
    f"GET {API}/call/v2/{{api_name}}/{{event_id}}": OWN,
    # gradio's: what nobody here needs
    "GET /openapi.json": CLOSED,
    "GET /pwa_icon": CLOSED,
    "GET /pwa_icon/{size}": CLOSED,
    "GET /monitoring": CLOSED,
    "GET /monitoring/summary": CLOSED,
    "GET /monitoring/{key}": CLOSED,
    f"GET {API}/deep_link": CLOSED,
    f"GET {API}/dev/reload": CLOSED,
    f"GET {API}/runs": CLOSED,
    f"GET {API}/custom_component/{{id}}/{{environment}}/{{type}}/{{file_name}}": CLOSED,
    f"GET {API}/proxy={{url_path:path}}": CLOSED,
    f"HEAD {API}/proxy={{url_path:path}}": CLOSED,
    f"GET {API}/file/{{path:path}}": CLOSED,
    f"POST {API}/stream/{{event_id}}": CLOSED,
    f"POST {API}/stream/{{event_id}}/close": CLOSED,
    f"GET {API}/stream/{{session_hash}}/{{run}}/{{component_id}}/playlist.m3u8": CLOSED,
    f"GET {API}/stream/{{session_hash}}/{{run}}/{{component_id}}/{{segment_id}}.{{ext}}": CLOSED,
    f"GET {API}/stream/{{session_hash}}/{{run}}/{{component_id}}/playlist-file": CLOSED,
    f"POST {API}/component_server": CLOSED,
    f"GET {API}/queue/status": CLOSED,
    f"POST {API}/process_recording": CLOSED,
    f"POST {API}/vibe-edit": CLOSED,
    f"POST {API}/undo-vibe-edit": CLOSED,
    f"GET {API}/vibe-code": CLOSED,
    f"POST {API}/vibe-code": CLOSED,
    f"POST {API}/vibe-starter-queries": CLOSED,
}  # fmt: skip
ONLY_WITH_HUGGINGFACE = {"/login/huggingface", "/login/callback"}
NAMES = {"session_hash", "event_id", "upload_id"}
"""What the doors read as the visitor's own."""
NAMES_NOTHING = {
    "path", "path_or_url", "url_path", "page", "deep_link", "all_session", "size", "key", "api_name", "data",
    "oauth_token", "event_data", "fn_index", "trigger_id", "simple_format", "batched",
}  # fmt: skip


def script(request: GenerationRequest) -> Script:
    slow = request.messages[-1].text == SLOW
    return Script(answer=("word ",) * 10_000, interval_s=0.02) if slow else Script(answer=("yes",))


@pytest.fixture(scope="module")
def app(card: Card) -> Iterator[Served]:
    with serving(scripted_engine(card, script)) as served:
        yield served


@pytest.fixture(scope="module")
def locked(card: Card) -> Iterator[Served]:
    people = People(sign_in=SignIn(class_code=CODE))
    with serving(scripted_engine(card, script), people=people) as served:
        yield served


def routes_of(routes: Any) -> Iterator[Any]:
    """Those of the routers within it, and of what is mounted, too."""
    for route in routes:
        inner = getattr(route, "original_router", None) or getattr(route, "app", None)
        if inner is not None and hasattr(inner, "routes"):
            yield from routes_of(inner.routes)
        else:
            yield route


def all_of(app: Served) -> dict[str, Any]:
    """The routes of the running app by method and path. A slash at the end makes no other one, and a GET of ours is
    answered without its body where HEAD is asked."""
    found: dict[str, Any] = {}
    for route in routes_of(app.blocks.app.routes):
        methods = set(route.methods) - ({"HEAD"} if "GET" in route.methods else set())
        found |= {f"{method} {route.path.rstrip('/') or '/'}": route for method in methods}
    return found


def filled(route: str, **values: str) -> str:
    """A path that the route is for."""
    name = "predict" if route.startswith((f"{API}/run/", f"{API}/api/")) else "chat"
    values = {"api_name": name, **values}
    return re.sub(r"{(\w+)(:path)?}", lambda found: values.get(found[1], "x"), route).removeprefix("/")


# --- the table -----------------------------------------------------------------------------------


def test_every_route_of_the_running_app_is_in_the_table_and_every_one_in_it_is_there(app: Served) -> None:
    assert set(all_of(app)) == set(EXPECTED), (
        "say in EXPECTED, and in ui/server/routes.py or at the route, who may use it"
    )


def test_the_doors_open_what_the_table_says_and_no_more() -> None:
    assert {row.path for row in GRADIO if row.path not in ONLY_WITH_HUGGINGFACE} <= {
        route.partition(" ")[2] for route, whose in EXPECTED.items() if whose != CLOSED
    }


def test_whatever_a_route_of_gradios_lets_one_name_is_known(app: Served) -> None:
    """A new way to name a session must not pass the doors unread."""
    for named, route in all_of(app).items():
        if EXPECTED[named] == CLOSED or not hasattr(route, "dependant"):
            continue
        dependant = route.dependant
        given = {param.name for param in (*dependant.path_params, *dependant.query_params)}
        for param in dependant.body_params:
            given |= set(getattr(param.field_info.annotation, "model_fields", {}))
        assert given <= NAMES | NAMES_NOTHING, named
        assert dependant.header_params == dependant.cookie_params == [], named
        assert (EXPECTED[named] == OWN) == bool(given & NAMES) or "call/v2" in named, named


@pytest.mark.parametrize("route", [route for route, whose in EXPECTED.items() if whose == CLOSED])
def test_what_nobody_needs_is_not_there_for_anybody(app: Served, route: str) -> None:
    method, _, path = route.partition(" ")
    with httpx.Client(base_url=app.url, timeout=PATIENCE_S) as client:
        for _ in ("nobody", "somebody with a seat"):
            for asked in (method, "GET", "POST", "PUT", "OPTIONS"):
                if any(f"{asked} {known}" in EXPECTED and EXPECTED[f"{asked} {known}"] != CLOSED for known in [path]):
                    continue
                answer = client.request(asked, filled(path))
                assert answer.status_code == 404
                assert asked == "HEAD" or answer.json() == {"error": "There is no such endpoint."}
            client.post("config")


@pytest.mark.parametrize("route", [route for route, whose in EXPECTED.items() if whose != CLOSED])
def test_before_signing_in_only_what_is_for_everybody_is_there(locked: Served, route: str) -> None:
    method, _, path = route.partition(" ")
    with httpx.Client(base_url=locked.url, timeout=PATIENCE_S) as client:
        for _ in ("nobody", "somebody with a seat"):
            answer = client.request(method, filled(path))
            if EXPECTED[route] == ALL:
                assert answer.status_code not in (303, 404, 405)
                assert answer.status_code != 401 or path == "/login"
            elif path == "/":
                assert (answer.status_code, answer.headers["location"]) == (303, "login")
            else:
                assert answer.status_code == 401
                assert method == "HEAD" or "Sign in first" in answer.json()["error"]
            client.get("")


@pytest.mark.parametrize("route", [route for route, whose in EXPECTED.items() if whose in (ALL, IN)])
def test_what_is_for_everybody_is_the_same_for_everybody(app: Served, route: str) -> None:
    method, _, path = route.partition(" ")
    answers = []
    for seated in (False, True):
        with httpx.Client(base_url=app.url, timeout=PATIENCE_S) as client:
            if seated:
                client.post("config")
            answers.append(client.request(method, filled(path)).status_code)
    assert len(set(answers)) == 1
    assert answers[0] < 500 or path == "/readyz"
    assert (answers[0] != 404) or "{path:path}" in path


# --- what names a session, an event or an upload -------------------------------------------------


@dataclass
class Room:
    """An owner with a page on which an answer is being written, and with a call that waits for its turn."""

    served: Served
    owner: httpx.Client
    page: str
    event: str = ""
    called: str = ""
    clients: dict[str, httpx.Client] = field(default_factory=dict)

    def function(self, name: str) -> int:
        return next(function._id for function in self.served.blocks.fns.values() if function.name == name)

    def stop(self) -> None:
        """The page's answer; the call has its turn then."""
        told = {"session_hash": self.page, "fn_index": self.function("chat"), "event_id": self.event}
        self.owner.post("gradio_api/cancel", json=told).raise_for_status()
        eventually(lambda: self.running == 0)

    @property
    def running(self) -> int:
        return sum(model.line.running for model in self.served.engine.models.loaded())


@contextmanager
def busy(app: Served) -> Iterator[Room]:
    with ExitStack() as stack:
        clients = {
            name: stack.enter_context(httpx.Client(base_url=app.url, timeout=PATIENCE_S))
            for name in ("owner", "another seat", "no seat")
        }
        for name in ("owner", "another seat"):
            assert clients[name].post("config").cookies  # a seat, without the work that the page makes
        room = Room(app, clients["owner"], secrets.token_hex(5), clients=clients)
        chat = {"fn_index": room.function("chat"), "session_hash": room.page, "data": [SLOW, *[None] * 13]}
        room.event = room.owner.post("gradio_api/queue/join", json=chat).raise_for_status().json()["event_id"]
        called = room.owner.post("gradio_api/call/v2/math", json={"message": "Why?"})
        room.called = called.raise_for_status().json()["event_id"]
        eventually(lambda: room.running >= 1)
        yield room
        room.stop()


def asked(
    room: Room, client: httpx.Client, route: str, session: str, event: str, *, listen: bool = True
) -> tuple[int, str]:
    """What comes back, as far as it comes at once and says nothing that is anew every time. Of a stream it is the
    first piece, or none where nobody listens."""
    method, _, path = route.partition(" ")
    path = filled(path, session_hash=session, event_id=event)
    body: Any = None
    if method == "POST":
        function = "stop" if "predict" in path else "leave"
        body = {"session_hash": session, "event_id": event, "fn_index": room.function(function), "data": []}
    if path.endswith("/cancel"):
        body["fn_index"] = room.function("chat")
    if "/call/v2/" in path:
        body = {"session_hash": session, "message": "Why?"}
    elif "/call/" in path and body:
        body["data"] = ["Why?", *[None] * 13]
    query = {"session_hash": session, "upload_id": session} if "queue/data" in path or "upload" in path else None
    upload = {"files": {"files": ("x.txt", b"x")}} if path.endswith("/upload") else {"json": body}
    with client.stream(method, path, params=query, **({} if body is None else upload)) as answer:
        streams = answer.headers.get("content-type", "").startswith("text/event-stream")
        text = answer.read().decode() if not streams else next(answer.iter_text(), "") if listen else ""
    return answer.status_code, re.sub(r'"(event_id|duration|average_duration|path)": ?"?[\w./-]+"?', "", text)


@pytest.fixture
def room(app: Served) -> Iterator[Room]:
    with busy(app) as made:
        yield made


@pytest.mark.parametrize("stranger", ["another seat", "no seat"])
@pytest.mark.parametrize("route", [r for r, whose in EXPECTED.items() if whose == OWN and r != "POST /forget"])
def test_somebody_elses_is_to_a_stranger_as_if_it_were_invented(room: Room, route: str, stranger: str) -> None:
    client, invented_page = room.clients[stranger], secrets.token_hex(5)
    named = [
        (room.page, room.event),
        (room.event, room.page),  # where a route takes one of them for the other
        (room.called, room.called),
        (room.page, secrets.token_hex(16)),
        (secrets.token_hex(5), room.event),
    ]
    with ThreadPoolExecutor() as at_once:  # gradio waits three seconds for an upload that there is not
        answers = [at_once.submit(asked, room, client, route, session, event) for session, event in named]
        invented = asked(room, client, route, invented_page, secrets.token_hex(16))
        assert [answer.result() for answer in answers] == [invented] * len(named)
    running = room.running
    assert running >= 1, "and nothing of theirs was stopped"
    holder = room.served.blocks.app.state_holder
    queue = room.served.blocks._queue
    assert any(room.event in events for events in queue.pending_event_ids_session.values())
    (page,) = (page for page, events in queue.pending_event_ids_session.items() if room.event in events)
    assert page not in holder or not holder[page].is_closed


def test_and_its_owner_has_all_of_it_afterwards(app: Served) -> None:
    with busy(app) as room:
        for route, whose in EXPECTED.items():
            if whose == OWN and route != "POST /forget":
                for stranger in ("another seat", "no seat"):
                    for event in (room.called, room.event):
                        asked(room, room.clients[stranger], route, room.page, event, listen=False)
        with room.owner.stream("GET", "gradio_api/queue/data", params={"session_hash": room.page}) as stream:
            text = "".join(line for _, line in zip(range(12), stream.iter_lines(), strict=False))
        assert set(re.findall(r'"event_id":"(\w+)"', text)) == {room.event}
        assert "word word" in text
        room.stop()
        told = room.owner.get(f"gradio_api/call/math/{room.called}").text
        assert "event: complete" in told
        assert '"answer": "yes"' in told


@pytest.mark.parametrize("who", ["another seat", "no seat"])
@pytest.mark.parametrize("way", ["call", "call/v2"])
def test_who_begins_an_event_is_told_it_once(room: Room, who: str, way: str) -> None:
    client = room.clients[who]
    body: Any = {"message": "Why?"} if way == "call/v2" else {"data": ["Why?", *[None] * 13]}
    event = client.post(f"gradio_api/{way}/chat", json=body).raise_for_status().json()["event_id"]
    for other in set(room.clients) - {who}:
        assert room.clients[other].get(f"gradio_api/{way}/chat/{event}").status_code == 404
    told = client.get(f"gradio_api/{way}/chat/{event}")
    assert told.status_code == 200
    assert "event: complete" in told.text
    ended = client.get(f"gradio_api/{way}/chat/{event}")
    invented = client.get(f"gradio_api/{way}/chat/{secrets.token_hex(16)}")
    assert (ended.status_code, ended.content) == (404, invented.content) == (invented.status_code, ended.content)


def test_of_two_who_listen_to_an_event_at_once_one_is_told_that_there_is_none(app: Served) -> None:
    with httpx.Client(base_url=app.url, timeout=PATIENCE_S) as client:
        assert client.post("config").cookies
        event = client.post("gradio_api/call/v2/chat", json={"message": SLOW}).raise_for_status().json()["event_id"]
        with client.stream("GET", f"gradio_api/call/chat/{event}") as first:
            assert first.status_code == 200
            assert client.get(f"gradio_api/call/chat/{event}").status_code == 404
            assert next(first.iter_lines()).startswith("event: ")


def test_a_session_that_a_call_names_is_its_callers_too(room: Room) -> None:
    """`call` takes a session hash: gradio would put the event into that session's stream."""
    body = {"data": ["Why?", *[None] * 13], "session_hash": room.page}
    event = room.clients["no seat"].post("gradio_api/call/chat", json=body).raise_for_status().json()["event_id"]
    pending = room.served.blocks._queue.pending_event_ids_session
    with_ours = next(events for events in pending.values() if room.event in events)
    assert event not in with_ours
    assert "event: complete" in room.clients["no seat"].get(f"gradio_api/call/chat/{event}").text


@pytest.mark.parametrize("who", ["another seat", "no seat", "owner"])
def test_only_its_owner_stops_an_answer(app: Served, who: str) -> None:
    with busy(app) as room:
        for session, event in ((room.page, "invented"), (room.page, room.event), ("invented", room.event)):
            told = {"session_hash": session, "fn_index": room.function("chat"), "event_id": event}
            assert room.clients[who].post("gradio_api/cancel", json=told).json() == {"success": True}
        if who == "owner":
            eventually(lambda: room.running == 0)
        else:
            assert room.running >= 1


def test_find_tells_a_path_that_there_is_not_from_a_method_that_it_does_not_take() -> None:
    assert find(GRADIO, "/gradio_api/nothing", "GET") == (None, {})
    row, _ = find(GRADIO, "/gradio_api/cancel", "GET")
    assert row is not None
    assert "GET" not in row.methods
    row, places = find(GRADIO, "/gradio_api/call/chat/x", "GET")
    assert row is not None
    assert places == {"api_name": "chat", "event_id": "x"}
    assert row.filled(places) == "/gradio_api/call/chat/x"
