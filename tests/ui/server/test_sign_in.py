"""The door with a lock: who gives the right word is let in, whoever guesses is slowed, and who leaves is forgotten."""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
from argon2 import PasswordHasher
from gradio_client import Client
from gradio_client.exceptions import AuthenticationError

from backends.adapters.scripted import Script
from backends.catalog.cards import Card
from backends.core.types import GenerationRequest
from backends.host import accounts
from backends.host.accounts import Accounts, new_account, read_accounts, write_accounts
from tests.patience import PATIENCE_S, eventually
from tests.served import Served, leaks_of_gradio, scripted_engine, serving
from ui.conversation.texts import LANGUAGES, dictionaries, speaker
from ui.server import sign_in
from ui.server.sign_in import ADJECTIVES, ANIMALS, WRONG, SignInPages
from ui.visitors.owners import page_of, pages_of
from ui.visitors.people import COOKIE, People, SignIn, Visitor

CODE = "open sesame & <so on>"
PASSWORDS = {"Ann": "correct horse", "Ben": "battery staple"}
HTML = {"accept": "text/html,application/xhtml+xml"}
SLOW = "slow"


def script(request: GenerationRequest) -> Script:
    if request.messages[-1].text == SLOW:
        return Script(answer=("word ",) * 10_000, interval_s=0.02)
    return Script(answer=("yes",))


@dataclass(frozen=True)
class Room:
    """A served playground that people sign in to."""

    served: Served
    people: People
    pages: SignInPages
    users: Path
    clients: list[httpx.Client] = field(default_factory=list)

    def visitor(self, **options: Any) -> httpx.Client:
        """Somebody new, with cookies of their own."""
        client = httpx.Client(base_url=self.served.url, timeout=PATIENCE_S, **options)
        self.clients.append(client)
        return client

    def seated(self) -> httpx.Client:
        """Somebody new who has opened the page, and was sent to the door."""
        client = self.visitor()
        assert client.get("").status_code == 303
        assert COOKIE in client.cookies
        return client

    def signed_in(self, name: str = "", password: str = CODE) -> httpx.Client:
        client = self.seated()
        assert enter(client, name, password).status_code == 200
        return client

    def key(self, client: httpx.Client) -> str:
        cookie = f"{COOKIE}={client.cookies[COOKIE]}".encode()
        return self.people.visitor({"headers": [(b"cookie", cookie)], "client": None}).key

    def name(self, client: httpx.Client) -> str:
        cookie = f"{COOKIE}={client.cookies[COOKIE]}".encode()
        return self.people.visitor({"headers": [(b"cookie", cookie)], "client": None}).name

    def on_server(self, key: str, *told: str) -> list[str]:
        """As they are called on the server."""
        return sorted(page_of(Visitor(key), page) for page in told)

    @property
    def holder(self) -> Any:
        return self.served.blocks.app.state_holder

    def function(self, name: str) -> int:
        return next(function._id for function in self.served.blocks.fns.values() if function.name == name)

    def open_page(self, client: httpx.Client, page: str) -> int:
        """What the server says to the first call of a page."""
        body = {"fn_index": self.function("stop"), "data": [], "session_hash": page}
        return client.post("gradio_api/run/predict", json=body).status_code

    @property
    def running(self) -> int:
        return sum(model.line.running for model in self.served.engine.models.loaded())


def enter(client: httpx.Client, name: str = "", password: str = CODE, **headers: str) -> httpx.Response:
    data = {"username": name, "password": password} if name else {"password": password}
    return client.post("login", data=data, headers=headers)


@contextmanager
def opened(card: Card, folder: Path, **ways: Any) -> Iterator[Room]:
    users = folder / "users"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(accounts, "_hasher", PasswordHasher(time_cost=1, memory_cost=8, parallelism=1))
        accounts._nobody.cache_clear()
        write_accounts(users, {name: new_account(name, word) for name, word in PASSWORDS.items()})
        chosen = {"accounts": Accounts(users), "class_code": CODE} | ways
        people = People(sign_in=SignIn(**chosen))
        with serving(scripted_engine(card, script), people=people) as served:
            login = next(route for route in served.blocks.app.routes if getattr(route, "path", "") == "/login")
            room = Room(served, people, login.endpoint.__self__, users)
            yield room
            for client in room.clients:
                client.close()
    accounts._nobody.cache_clear()


@pytest.fixture(scope="module")
def shared(card: Card, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Room]:
    with opened(card, tmp_path_factory.mktemp("room")) as room:
        yield room


@pytest.fixture
def room(shared: Room) -> Room:
    """As if nobody had guessed yet."""
    shared.pages._wrong.storage.reset()
    return shared


# --- the door ------------------------------------------------------------------------------------


def test_before_anything_there_is_the_door_and_nothing_behind_it(room: Room) -> None:
    client = room.visitor()
    first = client.get("")
    assert (first.status_code, first.headers["location"]) == (303, "login")
    assert client.get("", follow_redirects=True).status_code == 200
    for path in ("config", "gradio_api/info", "page.js", "gradio_api/queue/data?session_hash=x", "theme.css"):
        assert client.get(path).status_code == 401, path
    assert client.post("gradio_api/call/chat", json={"data": []}).status_code == 401
    assert client.get("healthz").json()["status"] == "ok"


def test_the_class_code_lets_in_under_a_nickname(room: Room) -> None:
    client = room.seated()
    seat = room.key(client)
    answer = enter(client)
    assert (answer.status_code, answer.json()) == (200, {"success": True})
    assert room.name(client).split(" ")[0] in ADJECTIVES
    assert room.name(client).split(" ")[1] in ANIMALS
    assert (room.key(client) == seat.startswith("seat ") and seat) or room.key(client) == seat
    assert client.get("").status_code == 200
    assert client.get("config").status_code == 200


@pytest.mark.parametrize("code", [CODE, f" {CODE}\n"])
def test_a_browser_is_led_to_the_page_and_a_slip_around_the_code_is_forgiven(room: Room, code: str) -> None:
    client = room.seated()
    answer = enter(client, "", code, **HTML)
    assert (answer.status_code, answer.headers["location"]) == (303, "./")
    assert client.get("").status_code == 200


def test_a_name_and_its_password_let_in_under_that_name(room: Room) -> None:
    client = room.signed_in("Ann", PASSWORDS["Ann"])
    assert room.key(client) == "name Ann"
    assert room.name(room.signed_in(" Ann ", PASSWORDS["Ann"])) == "Ann", "a space around a name is no part of it"


def test_a_name_does_not_spoil_the_class_code(room: Room) -> None:
    assert room.key(room.signed_in("Somebody", CODE)).startswith("seat ")


@pytest.mark.parametrize("accept", ["", "text/html"])
def test_a_door_that_is_open_has_no_use_for_a_sign(card: Card, accept: str) -> None:
    pages = SignInPages(People(), None)  # type: ignore[arg-type]
    request: Any = type("Request", (), {"cookies": {}, "headers": {"accept": accept}})()
    assert pages._page(request).headers["location"] == "./"


WRONGS = [
    ("", ""), ("", "open sesame"), ("", CODE.upper()), ("", CODE + "x"), ("Ann", ""), ("Ann", PASSWORDS["Ben"]),
    ("ann", PASSWORDS["Ann"]), ("", PASSWORDS["Ann"]), ("Nobody", PASSWORDS["Ann"]), ("\0", "\0"), ("Ann:", "x"),
    ("Ä" * 500, "é" * 1000), ("Ann", "correct horse\0"), ("Ann\nBen", PASSWORDS["Ben"]), ("%", "&=;"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "password"), WRONGS)
def test_a_wrong_word_is_answered_by_the_sentence_alone(room: Room, name: str, password: str) -> None:
    client = room.seated()
    answer = enter(client, name, password)
    assert answer.status_code == 401
    assert answer.json() == {"error": speaker("en")("sign_in_wrong")}
    page = enter(client, name, password, **HTML)
    assert page.status_code == 401
    assert f"<p role='alert'>{speaker('en')('sign_in_wrong')}</p>" in page.text
    assert room.name(client) == ""
    assert client.get("config").status_code == 401


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b"", "application/x-www-form-urlencoded"),
        (b"\xff\xfe=%ff&password=%ff%00", "application/x-www-form-urlencoded"),
        (b"password", "text/plain"),
        (b'{"password": "x"}', "application/json"),
        (b"", ""),
        (b"--b\r\n", "multipart/form-data"),
        (b"--b\r\nnonsense", "multipart/form-data; boundary=b"),
        (b'--b\r\ncontent-disposition: form-data; name="password"; filename="x"\r\n\r\nx\r\n--b--\r\n',
         "multipart/form-data; boundary=b"),
        (b'--b\r\ncontent-disposition: form-data; name="password"\r\n\r\n' + b"x" * 20_000 + b"\r\n--b--\r\n",
         "multipart/form-data; boundary=b"),
    ],
)  # fmt: skip
def test_what_is_no_form_is_refused_without_a_fault(room: Room, content: bytes, kind: str) -> None:
    answer = room.visitor().post("login", content=content, headers={"content-type": kind})
    assert answer.status_code in (400, 401)
    assert COOKIE not in answer.cookies


# --- guessing ------------------------------------------------------------------------------------


def test_whoever_guesses_is_slowed_and_even_the_right_word_has_to_wait(room: Room) -> None:
    client = room.seated()
    for _ in range(WRONG["seat"]):
        assert enter(client, "", "a guess").status_code == 401
    for password in ("a guess", CODE):
        answer = enter(client, "", password)
        assert answer.status_code == 429
        assert answer.headers["retry-after"] == "60"
        assert answer.json() == {"error": speaker("en")("sign_in_slow")}
    page = enter(client, "Ann", PASSWORDS["Ann"], **HTML)
    assert (page.status_code, page.headers["retry-after"]) == (429, "60")
    assert speaker("en")("sign_in_slow") in page.text
    assert room.name(client) == ""
    assert enter(room.seated()).status_code == 200, "nobody else waits for it"


def test_right_words_count_for_nothing(room: Room) -> None:
    client = room.seated()
    for _ in range(2 * WRONG["seat"]):
        assert enter(client).status_code == 200


def test_a_name_is_guarded_against_many_seats(room: Room) -> None:
    for _ in range(WRONG["name"]):
        assert enter(room.seated(), "Ann", "a guess").status_code == 401
    assert enter(room.seated(), "Ann", PASSWORDS["Ann"]).status_code == 429
    assert enter(room.seated(), "Ben", PASSWORDS["Ben"]).status_code == 200
    assert enter(room.seated()).status_code == 200


def test_an_address_is_slowed_however_many_seats_and_names_it_tries(
    room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sign_in.WRONG, "address", 7)
    for n in range(7):
        assert enter(room.seated(), f"Nobody {n}", "a guess").status_code == 401
    assert enter(room.seated(), "Ben", PASSWORDS["Ben"]).status_code == 429


def test_who_refuses_the_cookie_is_counted_by_the_address(room: Room) -> None:
    for _ in range(WRONG["seat"]):
        assert enter(room.visitor(), "", "a guess").status_code == 401
    assert enter(room.visitor()).status_code == 429
    assert enter(room.seated()).status_code == 200


def test_guessing_many_at_once_gives_no_more_tries(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each waits for the other's password to be looked at, as those of many threads do."""
    client, many = room.seated(), WRONG["seat"] + 3
    all_there = threading.Barrier(many)
    check = room.pages._check

    def together(name: str, password: str) -> tuple[str, str] | None:
        all_there.wait(PATIENCE_S)
        return check(name, password)

    monkeypatch.setattr(room.pages, "_check", together)
    cookie = {"cookie": f"{COOKIE}={client.cookies[COOKIE]}"}

    def guess(number: int) -> int:
        data = {"password": f"guess {number}"}
        return httpx.post(f"{room.served.url}login", data=data, headers=cookie, timeout=PATIENCE_S).status_code

    with ThreadPoolExecutor(many) as pool:
        answers = sorted(pool.map(guess, range(many)))
    assert answers == [401] * WRONG["seat"] + [429] * (many - WRONG["seat"])


def test_after_a_minute_everybody_may_try_again(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    client = room.seated()
    for _ in range(WRONG["seat"] + 1):
        last = enter(client, "", "a guess")
    assert last.status_code == 429
    later = time.time() + 61
    monkeypatch.setattr(time, "time", lambda: later)
    assert enter(client).status_code == 200


# --- what the page says --------------------------------------------------------------------------


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_door_speaks_the_language_that_the_browser_asks_for(room: Room, language: str) -> None:
    texts = dictionaries()[language]
    page = room.visitor().get("login", headers={"accept-language": f"{language}, en;q=0.5"}).text
    for key in ("sign_in", "sign_in_code", "sign_in_name", "sign_in_password", "sign_in_with_name", "sign_in_privacy"):
        assert texts[key].replace("'", "&#x27;") in page
    wrong = enter(room.visitor(), "", "a guess", **{"accept-language": language})
    assert wrong.json() == {"error": texts["sign_in_wrong"]}


def test_the_door_is_in_german_for_who_reads_german(room: Room) -> None:
    page = room.visitor().get("login", headers={"accept-language": "de-DE,de;q=0.9,en;q=0.8"}).text
    assert "Klassencode" in page
    assert "Class code" not in page


def test_the_door_tells_no_secret_and_nothing_of_what_was_typed(room: Room) -> None:
    hashes = [account.password_hash for account in read_accounts(room.users).values()]
    client = room.seated()
    pages = [
        client.get("login").text,
        enter(client, "Ann", "<script>typed</script>", **HTML).text,
        enter(client, "<b>Eve</b>", "typed", **HTML).text,
        client.get("healthz").text,
        client.get("metrics").text,
    ]
    for page in pages:
        for secret in (CODE, CODE.replace("&", "&amp;"), "sesame", "Ann", "Ben", "typed", "Eve", *hashes, "$argon2"):
            assert secret not in page
        assert room.people.sign_in.code_mark not in page
    assert "<!-- " not in pages[0], "every place of the template is filled"


def test_the_page_behind_the_door_tells_no_secret_either(room: Room) -> None:
    page = room.signed_in("Ann", PASSWORDS["Ann"]).get("").text
    assert "sesame" not in page
    assert "argon2" not in page
    assert PASSWORDS["Ann"] not in page


@pytest.mark.parametrize(
    ("ways", "fields", "links"),
    [
        ({"class_code": "x"}, ["password"], 0),
        ({"accounts": True}, ["username", "password"], 0),
        ({"huggingface": True}, [], 1),
        ({"class_code": "x", "accounts": True, "huggingface": True}, ["password", "username", "password"], 1),
    ],
)
def test_the_door_has_what_the_host_has_opened(
    tmp_path: Path, ways: dict[str, Any], fields: list[str], links: int
) -> None:
    if "accounts" in ways:
        ways = ways | {"accounts": Accounts(tmp_path / "users")}
    pages = SignInPages(People(sign_in=SignIn(**ways)), None)  # type: ignore[arg-type]
    request: Any = type("Request", (), {"cookies": {}, "headers": {}})()
    page = bytes(pages._page(request).body).decode()
    assert re.findall(r"<input name='(\w+)'", page) == fields
    assert page.count("href='login/huggingface'") == links
    assert (
        page.count("<form method='post' action='login'>") == page.count("<button>") == len(set(ways) - {"huggingface"})
    )


# --- programs ------------------------------------------------------------------------------------


@contextmanager
def program(room: Room, name: str, password: str) -> Iterator[Client]:
    with leaks_of_gradio():
        client = Client(room.served.url, auth=(name, password), verbose=False)
    yield client
    with leaks_of_gradio():
        client.close()


def test_a_program_signs_in_as_a_person_does(room: Room) -> None:
    with program(room, "Ann", PASSWORDS["Ann"]) as client:
        assert client.predict("Why?", api_name="/chat")["answer"] == "yes"
        assert client.cookies.keys() == {COOKIE}


def test_a_program_may_give_the_class_code(room: Room) -> None:
    with program(room, "whoever", CODE) as client:
        assert client.predict("Why?", api_name="/chat")["state"] == "done"


def test_a_program_with_a_wrong_password_is_told_so(room: Room) -> None:
    with pytest.raises(AuthenticationError):
        Client(room.served.url, auth=("Ann", "a guess"), verbose=False)


def test_a_program_that_does_not_sign_in_is_told_to(room: Room) -> None:
    answer = room.visitor().post("gradio_api/call/chat", json={"data": ["Why?"]})
    assert answer.status_code == 401
    assert "Sign in first" in answer.json()["error"]


# --- nicknames -----------------------------------------------------------------------------------


def test_nobody_is_given_a_nickname_that_somebody_has_as_long_as_there_are_any(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sign_in, "ADJECTIVES", ADJECTIVES[:3])
    monkeypatch.setattr(sign_in, "ANIMALS", ANIMALS[:3])
    pages = SignInPages(People(), None)  # type: ignore[arg-type]
    given = [pages._nickname() for _ in range(60)]
    assert len(set(given)) == 60
    assert all(re.fullmatch(r"[a-z]+ [a-z]+( \d+)?", nickname) for nickname in given)


def test_nicknames_are_plain_words_and_each_stands_once() -> None:
    for words in (ADJECTIVES, ANIMALS):
        assert len(set(words)) == len(words)
        assert all(re.fullmatch("[a-z]+", word) for word in words)


# --- being forgotten -----------------------------------------------------------------------------


def test_who_is_forgotten_has_no_seat_and_no_pages_and_all_others_keep_theirs(room: Room) -> None:
    mine, other = room.signed_in(), room.signed_in()
    key, others = room.key(mine), room.key(other)
    for client, pages in ((mine, ("mine 1", "mine 2")), (other, ("other 1",))):
        assert [room.open_page(client, page) for page in pages] == [200] * len(pages)
    assert pages_of(room.holder, key) == room.on_server(key, "mine 1", "mine 2")

    answer = mine.post("forget")
    assert answer.json() == {"forgotten": True}
    assert COOKIE not in mine.cookies
    assert mine.get("").status_code == 303
    assert pages_of(room.holder, key) == []
    assert room.on_server(key, "mine 1")[0] not in room.holder
    assert pages_of(room.holder, others) == room.on_server(others, "other 1")
    assert room.open_page(other, "other 1") == 200


@pytest.mark.parametrize("name", ["", "Ann"])
def test_the_cookie_that_was_there_before_lets_in_no_more(room: Room, name: str) -> None:
    mine = room.signed_in(name, PASSWORDS.get(name, CODE))
    kept = mine.cookies[COOKIE]
    mine.post("forget").raise_for_status()
    thief = room.visitor(headers={"cookie": f"{COOKIE}={kept}"})
    for path in ("config", "gradio_api/info"):
        assert thief.get(path).status_code == 401
    assert thief.post("gradio_api/call/v2/chat", json={"message": "Why?"}).status_code == 401
    assert thief.post("forget").status_code == 401
    again = room.visitor(headers={"cookie": f"{COOKIE}={kept}"})
    assert enter(again, name, PASSWORDS.get(name, CODE)).status_code == 200
    assert thief.get("config").status_code == 401, "nor after its owner has signed in again"
    assert room.people.visitor(
        {"headers": [(b"cookie", f"{COOKIE}={again.cookies[COOKIE]}".encode())], "client": None}
    ).name


def test_who_is_forgotten_by_name_is_so_at_every_computer(room: Room) -> None:
    here, there, ben = (room.signed_in(name, PASSWORDS[name]) for name in ("Ann", "Ann", "Ben"))
    for client, page in ((here, "here"), (there, "there"), (ben, "of Ben")):
        assert room.open_page(client, page) == 200
    here.post("forget").raise_for_status()
    assert pages_of(room.holder, "name Ann") == []
    assert pages_of(room.holder, "name Ben") == room.on_server("name Ben", "of Ben")
    assert room.open_page(there, "there") == 200, "whoever else has the name is still signed in"


def test_nobody_is_forgotten_by_somebody_else(room: Room) -> None:
    mine = room.signed_in()
    assert room.open_page(mine, "a page of mine") == 200
    assert room.visitor().post("forget").status_code == 401
    assert room.signed_in().post("forget").status_code == 200
    assert mine.get("forget").status_code in (404, 405)
    other_site = mine.post("forget", headers={"origin": "https://evil.example"})
    assert other_site.status_code == 403
    assert pages_of(room.holder, room.key(mine)) == room.on_server(room.key(mine), "a page of mine")
    assert COOKIE in mine.cookies


def test_what_runs_for_who_is_forgotten_ends_and_nothing_is_left_of_it(room: Room) -> None:
    mine, other = room.signed_in(), room.signed_in()
    key, values = room.key(mine), {"data": [SLOW, *[None] * 13], "session_hash": "a slow page"}
    chat = room.function("chat")
    mine.post("gradio_api/queue/join", json={"fn_index": chat} | values).raise_for_status()
    eventually(lambda: room.running == 1)
    assert room.open_page(other, "another page") == 200
    mine.post("forget").raise_for_status()
    eventually(lambda: room.running == 0)
    queue = room.served.blocks._queue
    eventually(lambda: not any(queue.active_jobs) and not queue.event_ids_to_events)
    assert room.on_server(key, "a slow page")[0] not in queue.pending_messages_per_session
    event = other.post("gradio_api/call/chat", json={"data": ["Why?", *[None] * 13]}).json()["event_id"]
    told = other.get(f"gradio_api/call/chat/{event}").text
    assert json.loads(told.strip().split("\n\n")[-1].splitlines()[1].removeprefix("data: "))[0]["answer"] == "yes"
