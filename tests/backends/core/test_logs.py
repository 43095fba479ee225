"""The log tells what happened and where, as JSON; never who somebody is, nor a word of what they wrote."""

from __future__ import annotations

import datetime
import io
import json
import logging
import re
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backends.adapters.scripted import Script, Scripted
from backends.catalog.cards import Card, Catalog
from backends.core import logs
from backends.core.cancel import Controls
from backends.core.logs import adopt, configure, daily_hash, logger
from backends.core.types import GenerationRequest, Message, Sampling
from backends.engine.engine import Engine
from backends.engine.pool import House, LocalModels
from backends.machine.machine import GIB, Machine

KEY = b"k" * 32
SECRET = "what somebody typed: hunter2"
PERSON = "name mia"


@pytest.fixture(autouse=True)
def as_it_was() -> Iterator[None]:
    """What configures the log does so for the whole process: afterwards everything is as before."""
    root, touched = logging.getLogger(), [logging.getLogger(name) for name in (*logs.QUIET, *logs.FOREIGN)]
    key, handlers, level = logs._key, root.handlers[:], root.level
    before = [(one, one.level, one.handlers[:], one.propagate) for one in touched]
    yield
    logs._key = key
    root.handlers[:] = handlers
    root.setLevel(level)
    for one, its_level, its_handlers, propagate in before:
        one.setLevel(its_level)
        one.handlers[:], one.propagate = its_handlers, propagate


class Written:
    """What the handler that `configure` installs has written, from a look to the next."""

    def __init__(self, level: str = "info", key: bytes = KEY) -> None:
        logging.getLogger().handlers[:] = []  # else those that stand there would be closed
        with redirect_stderr(io.StringIO()) as self._stream:
            configure(level, key)

    def text(self) -> str:
        said = self._stream.getvalue()
        self._stream.seek(0)
        self._stream.truncate()
        return said

    def events(self) -> list[dict[str, Any]]:
        """Each line, which must be one JSON object."""
        *lines, rest = self.text().split("\n")
        assert rest == "", "the last line has no end"
        events = [json.loads(line) for line in lines]
        assert all(isinstance(event, dict) for event in events)
        return events


@pytest.fixture
def written() -> Written:
    return Written()


def deep(error: BaseException) -> None:
    raise error


def chained() -> None:
    try:
        deep(KeyError(SECRET))
    except KeyError as exc:
        raise ValueError(SECRET) from exc


# --- people --------------------------------------------------------------------------------------

people = st.text(max_size=20)
days = st.dates()
keys = st.binary(min_size=1, max_size=40)


@given(person=people, key=keys, day=days)
def test_a_person_is_the_same_all_day_and_nobody_could_read_who(person: str, key: bytes, day: datetime.date) -> None:
    hashed = daily_hash(person, key, day)
    assert hashed == daily_hash(person, key, day)
    assert re.fullmatch(r"[0-9a-f]{12}", hashed)


@given(person=people, key=keys, day=days, other=st.tuples(people, keys, days))
def test_another_person_another_key_and_another_day_are_another_hash(
    person: str, key: bytes, day: datetime.date, other: tuple[str, bytes, datetime.date]
) -> None:
    for changed in ((other[0], key, day), (person, other[1], day), (person, key, other[2])):
        padded = changed[1].rstrip(b"\0") == key.rstrip(b"\0")  # to HMAC, keys are filled up with zeros
        same = (changed[0], changed[2]) == (person, day) and padded
        assert (daily_hash(*changed) == daily_hash(person, key, day)) == same


def test_the_log_of_a_day_has_one_hash_for_a_person_and_never_the_person(written: Written) -> None:
    log = logger("a.module")
    before = datetime.datetime.now(datetime.UTC).date()
    for way in (log.info, log.warning, log.error, log.bind(person=PERSON).info):
        way("asked", person=PERSON)
    log.info("asked", person="name bob")
    events = written.events()
    after = datetime.datetime.now(datetime.UTC).date()
    *mia, bob = [event["person"] for event in events]
    assert set(mia) <= {daily_hash(PERSON, KEY, day) for day in (before, after)}
    assert bob not in mia
    assert not any("mia" in json.dumps(event) for event in events)


@pytest.mark.parametrize("nobody", ["", None])
def test_what_nobody_has_asked_for_has_no_hash(written: Written, nobody: str | None) -> None:
    logger("a.module").info("asked", person=nobody)
    logger("a.module").info("started")
    asked, started = written.events()
    assert asked["person"] is None
    assert "person" not in started


def test_another_key_makes_other_hashes() -> None:
    hashes = set()
    for key in (KEY, b"another"):
        written = Written(key=key)
        logger("a.module").info("asked", person=PERSON)
        hashes.add(written.events()[0]["person"])
    assert len(hashes) == 2


# --- exceptions ----------------------------------------------------------------------------------


def by_exception(log: Any, error: Exception) -> None:
    log.exception("it failed")


def by_flag(log: Any, error: Exception) -> None:
    log.error("it failed", exc_info=True)


def by_instance(log: Any, error: Exception) -> None:
    log.warning("it failed", exc_info=error)


@pytest.mark.parametrize("way", [by_exception, by_flag, by_instance])
@pytest.mark.parametrize("make", [logger, logging.getLogger], ids=["structlog", "stdlib"])
@pytest.mark.parametrize(
    ("fail", "kind"),
    [
        (lambda: deep(ValueError(SECRET)), "ValueError"),
        (lambda: deep(UnicodeDecodeError("utf-8", SECRET.encode(), 0, 1, SECRET)), "UnicodeDecodeError"),
        (lambda: deep(ExceptionGroup(SECRET, [ValueError(SECRET)])), "ExceptionGroup"),
        (chained, "ValueError"),
    ],
    ids=["plain", "quoting", "group", "chained"],
)
def test_an_exception_leaves_its_type_and_its_way_but_none_of_its_words(
    written: Written,
    fail: Callable[[], None],
    kind: str,
    make: Callable[[str], Any],
    way: Callable[[Any, Exception], None],
) -> None:
    try:
        fail()
    except Exception as exc:
        way(make("a.module"), exc)
    line = written.text()
    assert not any(word in line for word in ("hunter2", "typed", "Traceback"))
    event = json.loads(line)
    assert (event["event"], event["logger"], event["exception"]) == ("it failed", "a.module", kind)
    assert all(re.fullmatch(r"\w+\.py:\d+ \S+", step) for step in event["at"])
    assert "test_logs.py" in event["at"][-1]
    assert event["at"][-1].endswith("chained" if fail is chained else "deep")
    assert "exc_info" not in event


def test_of_a_long_way_the_innermost_steps_are_kept(written: Written) -> None:
    def down(steps: int) -> None:
        if not steps:
            raise RuntimeError(SECRET)
        down(steps - 1)

    try:
        down(50)
    except RuntimeError:
        logger("a.module").exception("it failed")
    (event,) = written.events()
    assert len(event["at"]) == 12
    assert len(set(event["at"])) == 2


def test_where_there_is_no_exception_nothing_is_told_of_one(written: Written) -> None:
    logger("a.module").error("it failed", exc_info=True)
    logging.getLogger("a.module").error("it failed", exc_info=True)
    for event in written.events():
        assert event["event"] == "it failed"
        assert not {"exception", "at", "exc_info"} & set(event)


# --- lines ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("words", ["two\nlines", '"quoted"', "模型 🚀", "\u2028", "\x00\x1b[31m", "%s %d", "{}"])
@pytest.mark.parametrize("make", [logger, logging.getLogger], ids=["structlog", "stdlib"])
def test_whatever_happens_is_one_object_on_one_line(written: Written, words: str, make: Callable[[str], Any]) -> None:
    make("a.module").info(words)
    (event,) = written.events()
    assert event["event"] == words
    assert (event["logger"], event["level"]) == ("a.module", "info")
    assert datetime.datetime.fromisoformat(event["timestamp"]).utcoffset() == datetime.timedelta()


def test_values_that_json_does_not_know_do_not_lose_the_line(written: Written) -> None:
    logger("a.module").info("loaded", where=KEY, which=frozenset({"a"}), what=object(), number=1.5)
    (event,) = written.events()
    assert event["number"] == 1.5
    assert {"where", "which", "what"} <= set(event)


def test_what_other_libraries_say_with_arguments_is_one_sentence(written: Written) -> None:
    logging.getLogger("a.library").warning("%s took %d s", "loading", 3)
    assert [event["event"] for event in written.events()] == ["loading took 3 s"]


def test_only_what_is_worth_the_level_is_written() -> None:
    for level, expected in {"warning": ["b"], "debug": ["a", "b"]}.items():
        written = Written(level)
        for make in (logger, logging.getLogger):
            make("a.module").debug("a")
            make("a.module").warning("b")
        assert [event["event"] for event in written.events()] == expected * 2


def test_libraries_that_tell_of_every_request_are_heard_only_when_something_is_wrong(written: Written) -> None:
    adopt()  # a web server of another test may have set up loggers of its own
    for name in logs.QUIET:
        logging.getLogger(name).info("GET https://example.org/?q=hunter2")
        logging.getLogger(name).warning("something is wrong")
    assert [event["event"] for event in written.events()] == ["something is wrong"] * len(logs.QUIET)


def test_what_the_web_server_says_is_taken_in_too(written: Written) -> None:
    server = logging.getLogger("uvicorn.error")
    server.handlers[:], server.propagate = [logging.StreamHandler()], False
    adopt()
    try:
        deep(ValueError(SECRET))
    except ValueError:
        server.exception("Exception in ASGI application\n")
    (event,) = written.events()
    assert event["exception"] == "ValueError"
    assert "hunter2" not in json.dumps(event)


# --- an answer -----------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", [None, RuntimeError(SECRET)])
def test_of_a_question_and_its_answer_the_log_has_figures_and_not_a_word(
    card: Card, written: Written, fault: Exception | None
) -> None:
    script = Script(("secret thought ",), ("secret answer ",))
    if fault:
        script = Script(("secret thought ",), ("secret answer ",), fail_after=1, error=fault)
    backend = Scripted(script)
    models = LocalModels(
        Catalog((card,)), "scripted", backend.capabilities, lambda card, fit: backend, lambda artefact: True,
        house=House(lambda: Machine(1, 1, 16 * GIB, 16 * GIB)),
    )  # fmt: skip
    request = GenerationRequest(card, (Message.of("user", SECRET),), Sampling(), person=PERSON, conversation="talk 7")
    *_, end = Engine(models).run(request, Controls())
    lines = written.text()
    assert not any(word in lines for word in ("hunter2", "secret", "mia", "talk 7"))
    answered = json.loads(lines.splitlines()[-1])
    assert answered["event"] == "answered"
    assert answered["person"]
    assert (answered["messages"], answered["characters"]) == (1, len(SECRET))
    assert answered["number"] == getattr(end, "number", None)
    assert answered["outcome"] == ("failed" if fault else "done")
