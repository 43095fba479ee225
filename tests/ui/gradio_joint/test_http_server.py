"""The server that gradio starts: what it believes of a proxy, and how long it waits for who says nothing."""

from __future__ import annotations

import inspect
import select
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from urllib.parse import urlsplit

import gradio.http_server
import httpx
import pytest
import uvicorn

from backends.adapters.scripted import Script
from backends.catalog.cards import Card
from tests.patience import PATIENCE_S
from tests.served import Served, scripted_engine, serving
from ui.gradio_joint import http_server as gradio_server
from ui.gradio_joint.http_server import ImpatientProtocol, install
from ui.visitors.people import People

LIMIT_S = 0.3


@contextmanager
def served(card: Card, proxies: int = 0) -> Iterator[Served]:
    with (
        pytest.MonkeyPatch.context() as patch,
        serving(scripted_engine(card, lambda request: Script(answer=("yes",))), people=People(proxies=proxies)) as app,
    ):
        patch.setattr(gradio_server, "HEAD_SECONDS", LIMIT_S)
        yield app


@pytest.fixture(scope="module", params=["", "*"], ids=["usual", "FORWARDED_ALLOW_IPS=*"])
def app(card: Card, request: pytest.FixtureRequest) -> Iterator[Served]:
    """Started by who has told uvicorn to believe everybody, too."""
    with pytest.MonkeyPatch.context() as patch:
        if request.param:
            patch.setenv("FORWARDED_ALLOW_IPS", request.param)
        with served(card) as made:
            yield made


@pytest.fixture(scope="module")
def behind(card: Card) -> Iterator[Served]:
    with served(card, proxies=1) as made:
        yield made


# --- how long ------------------------------------------------------------------------------------


@contextmanager
def line(app: Served) -> Iterator[socket.socket]:
    place = urlsplit(app.url)
    with socket.create_connection((place.hostname, place.port), PATIENCE_S) as opened:
        yield opened


def ends(opened: socket.socket) -> bytes:
    """All that comes until the server closes the connection."""
    came = b""
    while piece := opened.recv(4096):
        came += piece
    return came


HEADS = {
    "nothing": b"",
    "a byte": b"G",
    "half a line": b"GET /healthz HT",
    "a line": b"GET /healthz HTTP/1.1\r\n",
    "half a header": b"GET /healthz HTTP/1.1\r\nhost: he",
    "all but the last byte": b"GET /healthz HTTP/1.1\r\nhost: here\r\n\r",
    "no request": b"\r\n\r\n",
}


def test_a_head_that_does_not_come_is_not_waited_for(app: Served) -> None:
    with ExitStack() as stack:
        lines = {name: stack.enter_context(line(app)) for name in HEADS}
        for name, opened in lines.items():
            opened.sendall(HEADS[name])
        for name, opened in lines.items():
            assert not ends(opened).startswith(b"HTTP/1.1 200"), name


def drip(opened: socket.socket, piece: bytes) -> None:
    """Until nobody is there any more to take it."""
    until = time.monotonic() + PATIENCE_S
    while time.monotonic() < until:
        try:
            opened.sendall(piece)
        except OSError:
            return
        time.sleep(LIMIT_S / 10)
    raise AssertionError("it was waited for without an end")


def test_a_head_that_drips_wins_no_time(app: Served) -> None:
    with line(app) as opened:
        opened.sendall(b"GET /healthz HTTP/1.1\r\n")
        drip(opened, b"x: y\r\n")


def test_nor_does_the_second_head_of_a_connection(app: Served) -> None:
    with line(app) as opened:
        opened.sendall(b"GET /healthz HTTP/1.1\r\nhost: here\r\n\r\n")
        assert opened.recv(4096).startswith(b"HTTP/1.1 200")
        drip(opened, b"G")


def test_nor_does_a_body_that_was_refused_already(app: Served) -> None:
    with line(app) as opened:
        opened.sendall(b"POST /nothing HTTP/1.1\r\nhost: here\r\ntransfer-encoding: chunked\r\n\r\n")
        assert opened.recv(4096).startswith(b"HTTP/1.1 404")
        drip(opened, b"1\r\nx\r\n")


def test_who_asks_in_time_is_answered_as_often_as_they_like(app: Served) -> None:
    until = time.monotonic() + 3 * LIMIT_S
    with httpx.Client(base_url=app.url, timeout=PATIENCE_S) as client:
        while time.monotonic() < until:
            assert client.get("healthz").status_code == 200


def test_an_answer_may_take_longer_than_a_question(app: Served) -> None:
    with httpx.stream("GET", f"{app.url}gradio_api/heartbeat/a-page", timeout=PATIENCE_S) as told:
        lines = told.iter_lines()
        assert next(lines) == "data: ALIVE"
        time.sleep(2 * LIMIT_S)
        assert httpx.get(f"{app.url}healthz").status_code == 200
        stream = told.extensions["network_stream"].get_extra_info("socket")
        assert select.select([stream], [], [], 0)[0] == [], "nothing came, its end neither"


# --- who is believed -----------------------------------------------------------------------------

FORWARDED = {
    "x-forwarded-host": "evil.example",
    "x-forwarded-proto": "https",
    "x-forwarded-for": "192.0.2.1",
    "x-forwarded-port": "8443",
    "x-forwarded-prefix": "/evil",
    "x-forwarded-server": "evil.example",
    "x-forwarded-ssl": "on",
    "x-original-host": "evil.example",
    "x-original-url": "/evil",
    "x-rewrite-url": "/evil",
    "x-real-ip": "192.0.2.1",
    "x-host": "evil.example",
    "x-gradio-server": "http://evil.example",
    "forwarded": "for=192.0.2.1;host=evil.example;proto=https",
}
PATHS = [
    "",
    "config",
    "config/",
    "logout",
    "login",
    "gradio_api/info",
    "gradio_api/heartbeat",
    "static/x/",
    "robots.txt",
]


@pytest.mark.parametrize(
    ("path", "header"), [*((path, "all of them") for path in PATHS), *(("logout", header) for header in FORWARDED)]
)
def test_without_a_proxy_of_ours_no_header_changes_what_comes(app: Served, path: str, header: str) -> None:
    told = {header: FORWARDED[header]} if header in FORWARDED else FORWARDED
    answer = httpx.get(app.url + path, headers=told, timeout=PATIENCE_S)
    plain = httpx.get(app.url + path, timeout=PATIENCE_S)
    assert answer.status_code == plain.status_code
    assert answer.headers.get("location") == plain.headers.get("location")
    assert "evil" not in answer.text + str(answer.headers)
    assert "Secure" not in answer.headers.get("set-cookie", "")
    if "location" in answer.headers:
        assert urlsplit(answer.headers["location"]).netloc in ("", urlsplit(app.url).netloc)


def test_behind_a_proxy_the_page_has_the_name_that_the_visitor_used(behind: Served) -> None:
    told = [
        ("x-forwarded-host", "evil.example, playground.example"),
        ("x-forwarded-proto", "http"),
        ("x-forwarded-proto", "https"),
    ]
    answer = httpx.get(f"{behind.url}logout", headers=told)
    assert answer.headers["location"].rstrip("/") == "https://playground.example"
    page = httpx.get(f"{behind.url}config", headers=told, timeout=PATIENCE_S)
    assert page.json()["root"] == "https://playground.example"
    assert "Secure" in page.headers["set-cookie"]


@pytest.mark.parametrize("told", ["javascript", "ftp", "", "https://evil.example", "HTTPS"])
def test_a_scheme_that_is_none_is_not_taken(behind: Served, told: str) -> None:
    answer = httpx.get(f"{behind.url}logout", headers={"x-forwarded-proto": told})
    assert answer.headers["location"].startswith("http://127.0.0.1")


# --- what it rests on ----------------------------------------------------------------------------


def test_gradio_starts_it_so(app: Served) -> None:
    assert app.blocks.server.config.http_protocol_class is ImpatientProtocol
    assert app.blocks.server.config.proxy_headers is False


@pytest.mark.parametrize("missing", ["http", "proxy_headers", "its call"])
def test_where_gradio_or_uvicorn_is_another_one_the_playground_does_not_start(
    monkeypatch: pytest.MonkeyPatch, missing: str
) -> None:
    if missing == "its call":
        monkeypatch.setattr(gradio.http_server, "start_server", inspect.unwrap)
    else:
        monkeypatch.setattr(uvicorn.Config, "__init__", lambda self, app, http_=None: None)
    with pytest.raises(RuntimeError, match=r"requirements\.txt"):
        install()


def test_to_install_it_twice_is_to_install_it_once() -> None:
    install()
    config = gradio.http_server.uvicorn.Config
    install()
    assert gradio.http_server.uvicorn.Config.keywords == config.keywords
    assert gradio.http_server.uvicorn.Config.func is uvicorn.Config
