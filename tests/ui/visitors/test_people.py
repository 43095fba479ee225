"""Who asks: what they signed in with says it, else a cookie of ours, else the address; nobody can write any of them for
somebody else."""

from __future__ import annotations

import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from argon2 import PasswordHasher
from hypothesis import given
from hypothesis import strategies as st
from itsdangerous import URLSafeTimedSerializer
from starlette.requests import Request

from backends.core.types import Asker
from backends.host import accounts
from backends.host.accounts import Account, Accounts, new_account, write_accounts
from ui.server.doors import Doors
from ui.server.forwarding import as_asked
from ui.visitors import forgotten
from ui.visitors.forgotten import Forgotten
from ui.visitors.people import (
    COOKIE,
    NAME_SECONDS,
    NAMELESS,
    SEAT_SECONDS,
    People,
    SignIn,
    Visitor,
    asker,
    visitor,
)


def scope(cookie: str = "", forwarded: str = "", client: str = "203.0.113.7", path: str = "/") -> dict[str, Any]:
    headers = [(b"host", b"here"), (b"cookie", cookie.encode()), (b"x-forwarded-for", forwarded.encode())]
    return {
        "type": "http",
        "method": "GET",
        "scheme": "http",
        "path": path,
        "headers": [header for header in headers if header[1]],
        "client": (client, 4711),
        "app": SimpleNamespace(state_holder=None),
    }


def key(people: People, asked: dict[str, Any]) -> str:
    return people.visitor(as_asked(asked, people.proxies)).key


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


def lines(*values: str, client: str = "203.0.113.7") -> dict[str, Any]:
    """A request with so many lines of the header."""
    asked = scope(client=client)
    asked["headers"] += [(b"x-forwarded-for", value.encode()) for value in values]
    return asked


@given(cuts=st.lists(st.booleans(), min_size=3, max_size=3), proxies=st.integers(1, 4))
def test_an_address_is_read_from_the_end_however_the_entries_are_put_into_lines(cuts: list[bool], proxies: int) -> None:
    entries = ["198.51.100.66", "192.0.2.1", "192.0.2.2", "192.0.2.3"]
    joined = entries[0]
    for cut, entry in zip(cuts, entries[1:], strict=True):
        joined += ("\n" if cut else ", ") + entry
    asked = lines(*joined.split("\n"), client="10.0.0.1")
    assert key(People(proxies=proxies), asked) == f"address {entries[-proxies]}"


@pytest.mark.parametrize("client", ["127.0.0.1", "::1", "10.0.0.1"])
def test_without_a_proxy_of_ours_nobody_is_believed_who_says_where_they_come_from(client: str) -> None:
    asked = lines("192.0.2.1", "192.0.2.2", client=client)
    asked["headers"] += [(b"forwarded", b"for=192.0.2.3;proto=https"), (b"x-real-ip", b"192.0.2.4")]
    assert key(People(), asked) == key(People(), scope(client=client))


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
    assert b"set-cookie" not in dict(through(People(), scope(path="/theme.css"))[1])


# --- names ---------------------------------------------------------------------------------------


@pytest.fixture
def users(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file with Ann, who is the host, and Ben, who is not."""
    monkeypatch.setattr(accounts, "_hasher", PasswordHasher(time_cost=1, memory_cost=8, parallelism=1))
    file = tmp_path / "users"
    keep(file, new_account("Ann", "correct horse", host=True), new_account("Ben", "battery staple"))
    return file


def keep(file: Path, *kept: Account) -> None:
    write_accounts(file, {account.name: account for account in kept})


def named(people: People, name: str, way: str, seat: str = "a seat") -> str:
    """The cookie of who has signed in."""
    return people.signed_in(scope(), seat, name, way).partition(";")[0]


def of_users(file: Path) -> People:
    return People(sign_in=SignIn(accounts=Accounts(file)))


def after(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    now = time.time() + seconds
    monkeypatch.setattr(time, "time", lambda: now)


def test_without_a_way_in_everybody_may_enter_and_with_one_only_who_is_known(users: Path) -> None:
    assert People().may_enter(People().visitor(scope()))
    for sign_in in (SignIn(Accounts(users)), SignIn(class_code="x"), SignIn(huggingface=True)):
        people = People(sign_in=sign_in)
        assert sign_in.required
        assert not people.may_enter(people.visitor(scope()))
        assert not people.may_enter(people.visitor(scope(cookie(people)))), "a seat is no name"


def test_who_has_a_name_is_that_person_at_whatever_computer(users: Path) -> None:
    people = of_users(users)
    ann = people.visitor(scope(named(people, "Ann", "users")))
    assert ann == Visitor("name Ann", "a seat", "Ann", "users", host=True)
    elsewhere = people.visitor(scope(named(people, "Ann", "users", seat="another"), client="198.51.100.1"))
    assert (elsewhere.key, elsewhere.seat) == ("name Ann", "another")
    ben = people.visitor(scope(named(people, "Ben", "users")))
    assert (ben.key, ben.host) == ("name Ben", False)
    assert people.may_enter(ben)


def test_who_has_no_seat_yet_is_given_one_with_the_name(users: Path) -> None:
    people = of_users(users)
    seats = {people.visitor(scope(named(people, "Ben", "users", seat=""))).seat for _ in range(2)}
    assert "" not in seats
    assert len(seats) == 2


def test_a_nickname_is_nobodys_own_so_that_the_seat_counts() -> None:
    people = People(sign_in=SignIn(class_code="a code"))
    one, two = (people.visitor(scope(named(people, "calm otter", "class", seat))) for seat in ("1", "2"))
    assert one == Visitor("seat 1", "1", "calm otter", "class")
    assert one.key != two.key
    assert people.may_enter(one)


@pytest.mark.parametrize("way", ["users", "class"])
def test_a_name_is_asked_for_again_after_a_school_day(users: Path, monkeypatch: pytest.MonkeyPatch, way: str) -> None:
    people = People(sign_in=SignIn(Accounts(users), "a code"))
    kept = named(people, "Ann", way)
    after(monkeypatch, NAME_SECONDS - 60)
    assert people.visitor(scope(kept)).name == "Ann"
    after(monkeypatch, 120)
    assert people.visitor(scope(kept)) == Visitor("seat a seat", "a seat"), "the seat is still theirs"
    assert not people.may_enter(people.visitor(scope(kept)))


def test_a_seat_is_free_again_after_a_month(monkeypatch: pytest.MonkeyPatch) -> None:
    people = People()
    kept = cookie(people)
    after(monkeypatch, SEAT_SECONDS - 60)
    assert key(people, scope(kept)).startswith("seat ")
    after(monkeypatch, 120)
    assert key(people, scope(kept)).startswith("address ")


def test_who_is_taken_out_of_the_file_is_out(users: Path) -> None:
    people = of_users(users)
    ann, ben = named(people, "Ann", "users"), named(people, "Ben", "users")
    assert people.visitor(scope(ben)).name == "Ben"
    keep(users, new_account("Ann", "correct horse"))
    assert people.visitor(scope(ben)).name == ""
    assert not people.may_enter(people.visitor(scope(ben)))
    changed = people.visitor(scope(ann))
    assert (changed.name, changed.host) == ("Ann", False), "and who is the host no longer, is not"


def test_another_class_code_asks_everybody_in_the_class_again(users: Path) -> None:
    secret = b"0" * 32

    def people(code: str) -> People:
        return People(secret, sign_in=SignIn(Accounts(users), code))

    otter, ben = named(people("spring"), "calm otter", "class"), named(people("spring"), "Ben", "users")
    assert people("spring").visitor(scope(otter)).name == "calm otter"
    for code in ("autumn", "", "Spring"):
        assert people(code).visitor(scope(otter)).name == ""
        assert people(code).visitor(scope(ben)).name == "Ben"


def test_a_way_that_is_closed_again_lets_nobody_in_any_more(users: Path) -> None:
    secret = b"0" * 32
    open_to_all = People(secret, sign_in=SignIn(Accounts(users), "a code"))
    ben, otter = named(open_to_all, "Ben", "users"), named(open_to_all, "Ben", "class")
    assert People(secret, sign_in=SignIn(class_code="a code")).visitor(scope(ben)).name == ""
    assert People(secret, sign_in=SignIn(Accounts(users))).visitor(scope(otter)).name == ""
    for way in ("", "huggingface", "host", "seat"):
        assert open_to_all.visitor(scope(named(open_to_all, "Ben", way))).name == ""


def test_a_nickname_gives_no_rights_of_who_is_called_the_same(users: Path) -> None:
    people = People(sign_in=SignIn(Accounts(users), "a code", space_owner="Ann"))
    assert people.visitor(scope(named(people, "Ann", "class"))) == Visitor("seat a seat", "a seat", "Ann", "class")


def test_the_class_code_is_in_no_cookie() -> None:
    people = People(sign_in=SignIn(class_code="open sesame"))
    signer = URLSafeTimedSerializer(b"x", salt="seat")
    _, told = signer.loads_unsafe(named(people, "calm otter", "class").partition("=")[2])
    assert "open sesame" not in str(told)
    assert told["code"] == people.sign_in.code_mark != SignIn(class_code="open sesamf").code_mark


@given(data=st.data())
def test_a_name_cannot_be_had_by_changing_the_cookie(data: st.DataObject) -> None:
    people = People(sign_in=SignIn(class_code="a code"))
    value = named(people, "calm otter", "class").partition("=")[2]
    place = data.draw(st.integers(0, len(value) - 1))
    other = data.draw(st.sampled_from("AZaz09-_.").filter(lambda letter: letter != value[place]))
    told = people.visitor(scope(f"{COOKIE}={value[:place]}{other}{value[place + 1 :]}"))
    assert told.name in ("", "calm otter")  # the last letter of a part may have bits that do not count
    assert told.seat in ("", "a seat")


@pytest.mark.parametrize("salt", ["seat", "", "itsdangerous", "cookie"])
def test_a_name_that_somebody_else_signed_is_none(salt: str) -> None:
    sign_in = SignIn(class_code="a code")
    told = {"seat": "1", "name": "Ann", "way": "class", "until": 2**40, "code": sign_in.code_mark}
    forged = URLSafeTimedSerializer(b"not our key", salt=salt).dumps(told)
    assert People(sign_in=sign_in).visitor(scope(f"{COOKIE}={forged}")) == Visitor("address 203.0.113.7")


@pytest.mark.parametrize("told", [[], "a seat", 7, None, ["seat"], {}, {"seat": ""}, {"name": "Ann"}, {"until": 2**40}])
def test_whatever_was_signed_that_is_no_seat_is_none(told: Any) -> None:
    secret = b"0" * 32
    signed = URLSafeTimedSerializer(secret, salt="seat").dumps(told)
    people = People(secret, sign_in=SignIn(class_code="a code"))
    assert people.visitor(scope(f"{COOKIE}={signed}")) == Visitor("address 203.0.113.7")


def test_who_is_forgotten_has_their_cookie_taken_back() -> None:
    given = People().forget(scope())
    assert given.startswith(f"{COOKIE}=; ")
    assert "Max-Age=0" in given


# --- being forgotten -----------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["", "users", "class"])
def test_the_cookie_that_was_there_before_lets_in_no_more_and_nobody_elses_is_meant(users: Path, way: str) -> None:
    people = People(sign_in=SignIn(Accounts(users), "a code"))
    mine, later, other = (named(people, "Ann" if way else "", way, seat) for seat in ("1", "1", "2"))
    people.forget(scope(mine))
    for kept in (mine, later):
        assert people.visitor(scope(kept)) == Visitor("address 203.0.113.7")
    assert people.visitor(scope(other)).seat == "2", "the same person at another computer is still signed in"
    assert people.visitor(scope(named(people, "Ann", "users", "3"))).name == "Ann", "and may sign in again"


def test_a_restart_and_another_process_know_who_was_forgotten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    secret, sign_in = b"0" * 32, SignIn(class_code="a code")
    here, beside = (People(secret, sign_in=sign_in, forgotten=Forgotten(tmp_path)) for _ in range(2))
    mine, other = (named(here, "calm otter", "class", seat) for seat in ("1", "2"))
    assert beside.visitor(scope(mine)).name == "calm otter"
    here.forget(scope(mine))
    started_again = People(secret, sign_in=sign_in, forgotten=Forgotten(tmp_path))
    for people in (here, beside, started_again):
        assert people.visitor(scope(mine)).key == "address 203.0.113.7"
        assert people.visitor(scope(other)).seat == "2"
    beside.forget(scope(other))
    assert [here.visitor(scope(one)).seat for one in (mine, other)] == ["", ""]
    kept = "".join(path.read_text() for path in tmp_path.iterdir())
    assert "otter" not in kept
    assert "seat" not in kept


def test_of_very_many_forgotten_the_oldest_are_let_go_and_what_has_ended_is_not_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forgotten, "MOST", 3)
    kept = Forgotten(tmp_path)
    for number in range(5):
        kept.add(f"seat {number}", 60)
    assert [f"seat {number}" in kept for number in range(5)] == [False, False, True, True, True]
    after(monkeypatch, 61)
    kept.add("seat 9", 60)
    assert len((tmp_path / forgotten.NAME).read_text().splitlines()) == 1


@pytest.mark.parametrize("written", ["", "x", "a b c\n", "abc nan\n", "abc 1e999\n", "\0\n", "é\n"])
def test_a_record_that_cannot_be_read_keeps_nobody_out_and_can_be_added_to(tmp_path: Path, written: str) -> None:
    (tmp_path / forgotten.NAME).write_text(written)
    kept = Forgotten(tmp_path)
    assert "seat 1" not in kept
    kept.add("seat 1", 60)
    assert "seat 1" in kept
    assert "seat 1" in Forgotten(tmp_path)


def test_where_nothing_can_be_written_it_holds_until_the_end(tmp_path: Path) -> None:
    (tmp_path / "a file").write_text("")
    kept = Forgotten(tmp_path / "a file")
    kept.add("seat 1", 60)
    assert "seat 1" in kept


# --- Hugging Face --------------------------------------------------------------------------------


def session(name: Any = "ann", **changed: Any) -> dict[str, Any]:
    info = {"userinfo": {"preferred_username": name}, "expires_at": time.time() + 3600} | changed
    return {"oauth_info": info}


def on_a_space(owner: str = "") -> People:
    return People(proxies=1, sign_in=SignIn(huggingface=True, space_owner=owner))


def test_who_signed_in_with_hugging_face_is_known_by_that_name() -> None:
    people = on_a_space()
    told = people.visitor(scope() | {"session": session()})
    assert told == Visitor("huggingface ann", "", "ann", "huggingface")
    assert people.may_enter(told)


def test_the_owner_of_the_space_is_its_host_and_nobody_is_where_it_has_none() -> None:
    assert on_a_space("ann").visitor(scope() | {"session": session()}).host
    assert not on_a_space("ann").visitor(scope() | {"session": session("Ann")}).host
    assert not on_a_space("").visitor(scope() | {"session": session()}).host


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"oauth_info": {}},
        {"oauth_info": None},
        {"oauth_info": "ann"},
        session(""),
        session(expires_at=0),
        session(expires_at=time.time() - 1),
        session(userinfo={}),
        {"oauth_info": {"userinfo": {"preferred_username": "ann"}}},
    ],
)
def test_a_session_that_names_nobody_or_is_over_lets_nobody_in(given: dict[str, Any]) -> None:
    people = on_a_space("ann")
    told = people.visitor(scope() | {"session": given})
    assert told == Visitor("address 203.0.113.7")
    assert not people.may_enter(told)


def test_a_session_runs_out(monkeypatch: pytest.MonkeyPatch) -> None:
    people, kept = on_a_space(), session()
    after(monkeypatch, 3590)
    assert people.visitor(scope() | {"session": kept}).name == "ann"
    after(monkeypatch, 20)
    assert people.visitor(scope() | {"session": kept}).name == ""


def test_a_session_of_hugging_face_that_was_there_before_forget_me_lets_in_no_more() -> None:
    people, kept = on_a_space(), session()
    people.forget(scope() | {"session": kept})
    assert people.visitor(scope() | {"session": kept}).name == ""
    assert people.visitor(scope() | {"session": session(expires_at=time.time() + 7200)}).name == "ann", "a new one does"
    assert people.visitor(scope() | {"session": session("ben")}).name == "ben"


def test_hugging_face_counts_only_where_it_is_a_way_in(users: Path) -> None:
    asked = scope() | {"session": session()}
    assert People().visitor(asked).name == ""
    assert of_users(users).visitor(asked).name == ""


def test_what_counts_first_is_hugging_face_then_the_name_then_the_seat_then_the_address(users: Path) -> None:
    people = People(sign_in=SignIn(Accounts(users), "a code", huggingface=True))
    signed_in, seated = named(people, "Ben", "users", seat="1"), named(people, "", "", seat="1")
    asked = [
        scope(signed_in) | {"session": session("ann")},
        scope(signed_in) | {"session": session(expires_at=0)},
        scope(seated),
        scope(),
    ]
    assert [key(people, one) for one in asked] == ["huggingface ann", "name Ben", "seat 1", "address 203.0.113.7"]


def test_people_of_different_ways_are_never_the_same(users: Path) -> None:
    people = People(sign_in=SignIn(Accounts(users), "a code", huggingface=True))
    keep(users, new_account("ann", "correct horse"), new_account("seat 1", "battery staple"))
    kinds = [
        scope() | {"session": session("ann")},
        scope(named(people, "ann", "users", "1")),
        scope(named(people, "seat 1", "users", "2")),
        scope(named(people, "ann", "class", "1")),
        scope(client="::1"),
    ]
    assert len({key(people, one) for one in kinds}) == len(kinds)


# --- the host ------------------------------------------------------------------------------------


def test_who_is_alone_with_the_playground_is_its_host_unless_people_sign_in(users: Path) -> None:
    alone = People(alone=True)
    assert alone.visitor(scope()).host
    assert alone.visitor(scope(cookie(alone))).host
    assert not People().visitor(scope()).host
    locked = People(alone=True, sign_in=SignIn(Accounts(users)))
    assert not locked.visitor(scope()).host
    assert not locked.visitor(scope(named(locked, "Ben", "users"))).host
    assert locked.visitor(scope(named(locked, "Ann", "users"))).host
    in_class = People(alone=True, sign_in=SignIn(class_code="a code"))
    assert not in_class.visitor(scope(named(in_class, "calm otter", "class"))).host


def test_only_who_has_not_signed_in_shares_places_with_others_of_the_address(users: Path) -> None:
    people = People(sign_in=SignIn(Accounts(users), "a code"))
    assert people.visitor(scope()).address == "203.0.113.7"
    assert people.visitor(scope(cookie(people))).address == "203.0.113.7"
    for name, way in (("Ann", "users"), ("calm otter", "class")):
        assert people.visitor(scope(named(people, name, way))).address == ""


# --- what handlers see ---------------------------------------------------------------------------


class Event:
    """As gradio hands a request to a handler."""

    def __init__(self, **state: Any) -> None:
        self.request = Request(scope() | {"state": state})


def test_a_handler_sees_whom_the_doors_saw() -> None:
    seen, _ = through(People(), scope())
    found = seen["state"]["visitor"]
    assert visitor(Event(**seen["state"])) == found  # type: ignore[arg-type]
    assert asker(Event(**seen["state"]), "a talk") == Asker(found.key, "a talk", "203.0.113.7")  # type: ignore[arg-type]
    assert found.key == "address 203.0.113.7"


@pytest.mark.parametrize("request_", [None, object(), Event(), Event(visitor="Ann"), Event(visitor={"key": "Ann"})])
def test_whoever_did_not_come_through_the_doors_is_nobody(request_: Any) -> None:
    assert visitor(request_) == NAMELESS
    assert (NAMELESS.key, NAMELESS.host, NAMELESS.seat) == ("", False, "")
