"""Who asks: a cookie of ours says it, else the address; nobody can write either for somebody else."""

from __future__ import annotations

from typing import Any

import pytest

from ui.doors import Doors
from ui.people import COOKIE, People


def scope(cookie: str = "", forwarded: str = "", client: str = "203.0.113.7", path: str = "/") -> dict[str, Any]:
    headers = [(b"host", b"here"), (b"cookie", cookie.encode()), (b"x-forwarded-for", forwarded.encode())]
    return {
        "type": "http",
        "scheme": "http",
        "path": path,
        "headers": [header for header in headers if header[1]],
        "client": (client, 4711),
    }


def key(people: People, asked: dict[str, Any]) -> str:
    return people.visitor(asked).key


def cookie(people: People) -> str:
    return people.new_seat(scope()).partition(";")[0]


def test_a_seat_is_known_again_wherever_its_owner_comes_from() -> None:
    people = People()
    mine, other = cookie(people), cookie(people)
    assert key(people, scope(mine)) == key(people, scope(f"theme=dark; {mine}", client="198.51.100.1"))
    assert key(people, scope(mine)) != key(people, scope(other))
    assert key(people, scope(mine)).startswith("seat ")


@pytest.mark.parametrize("forged", ["", "abc", ".", "abc.", ".abc", "abc.def", "\x00.\x00", "a" * 5000])
def test_a_seat_that_we_did_not_give_is_none(forged: str) -> None:
    assert key(People(), scope(f"{COOKIE}={forged}")) == "address 203.0.113.7"


def test_a_seat_of_another_server_is_none() -> None:
    assert key(People(), scope(cookie(People()))) == "address 203.0.113.7"
    secret = b"0" * 32
    assert key(People(secret), scope(cookie(People(secret)))).startswith("seat ")


def test_a_seat_cannot_be_taken_by_changing_its_name() -> None:
    people = People()
    mine = cookie(people)
    assert key(people, scope(mine.replace("=", "=f", 1))).startswith("address ")


@pytest.mark.parametrize(
    ("proxies", "forwarded", "expected"),
    [
        (0, "", "203.0.113.7"),
        (0, "192.0.2.1", "203.0.113.7"),
        (1, "192.0.2.1", "192.0.2.1"),
        (1, "198.51.100.66, 192.0.2.1", "192.0.2.1"),
        (2, "198.51.100.66, 192.0.2.1, 10.0.0.1", "192.0.2.1"),
        (1, "", "203.0.113.7"),
        (2, "192.0.2.1", "192.0.2.1"),
        (1, "198.51.100.66, not an address", "unknown"),
    ],
)
def test_the_address_is_the_one_that_the_outermost_of_our_proxies_saw(
    proxies: int, forwarded: str, expected: str
) -> None:
    assert key(People(proxies=proxies), scope(forwarded=forwarded)) == f"address {expected}"


def test_a_whole_network_of_version_six_is_one_address() -> None:
    people = People()
    near = [key(people, scope(client=f"2001:db8::{n}")) for n in (1, 2)]
    assert near[0] == near[1] != key(people, scope(client="2001:db8:0:1::1"))


def through(people: People, asked: dict[str, Any]) -> tuple[dict[str, Any], list[tuple[bytes, bytes]]]:
    """The scope that the page sees, and the headers that the browser gets."""
    seen: dict[str, Any] = {}
    sent: list[Any] = []

    async def page(scope: Any, receive: Any, send: Any) -> None:
        seen.update(scope)
        await send({"type": "http.response.start", "status": 200, "headers": []})

    async def send(message: Any) -> None:
        sent.append(message)

    with pytest.raises(StopIteration):  # nothing in it ever waits, so that no event loop is needed
        Doors(page, people)(asked, None, send).send(None)  # type: ignore[arg-type]
    return seen, sent[0]["headers"]


def test_who_opens_the_page_is_seated_once() -> None:
    people = People()
    seen, headers = through(people, scope())
    assert seen["state"]["visitor"].key == "address 203.0.113.7"
    given = dict(headers)[b"set-cookie"].decode()
    assert "HttpOnly" in given
    assert "SameSite=Lax" in given
    seen, headers = through(people, scope(given.partition(";")[0]))
    assert seen["state"]["visitor"].key.startswith("seat ")
    assert b"set-cookie" not in dict(headers)


@pytest.mark.parametrize(
    ("proxies", "scheme", "told", "secure"),
    [(0, "https", "", True), (1, "http", "https", True), (0, "http", "https", False), (1, "http", "", False)],
)
def test_in_a_frame_of_another_site_the_seat_is_kept_too(proxies: int, scheme: str, told: str, secure: bool) -> None:
    asked = scope() | {"scheme": scheme}
    asked["headers"].append((b"x-forwarded-proto", told.encode()))
    given = dict(through(People(proxies=proxies), asked)[1])[b"set-cookie"].decode()
    assert ("SameSite=None; Secure; Partitioned" in given) == secure


def test_only_the_page_gives_seats() -> None:
    assert b"set-cookie" not in dict(through(People(), scope(path="/gradio_api/call/chat"))[1])
