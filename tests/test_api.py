"""The named endpoints as a program meets them: over HTTP, through gradio's own client and without it."""

from __future__ import annotations

import gc
import json
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import httpx
import pytest
from gradio_client import Client

from backends.adapters.scripted import Script, Scripted, tokens
from backends.catalog import Card, Catalog
from backends.engine import Engine
from backends.errors import EngineDied
from backends.machine import GIB, Machine
from backends.models import House, Models
from backends.types import GenerationRequest, Sampling
from ui.page import build, launch_options
from ui.tabs import TABS, tab

# gradio keeps its statistics with what the next pandas will have given up.
pytestmark = pytest.mark.filterwarnings("ignore::pandas.errors.Pandas4Warning")

PATIENCE_S = 10.0
SLOW = "slow"
BROKEN = "broken"
ECHO = "what was said?"
SAMPLING = list(Sampling.model_fields)
COMMON = ["history", "system", "model", "thinking", "thinking_budget", *SAMPLING]
STATES = ("queued", "loading", "thinking", "answering", "done")


def script(request: GenerationRequest) -> Script:
    """Answers by the last question: slowly, with an error, with all that it was told, or with two words."""
    match request.messages[-1].text:
        case "slow":
            return Script(answer=("word ",) * 3000, interval_s=0.02)
        case "broken":
            return Script(answer=("so ", "far "), fail_after=1, error=EngineDied("It broke."))
        case "unknown":
            return Script(answer=("so ",), fail_after=0, error=RuntimeError("/secret/path"))
        case "what was said?":
            return Script(answer=tokens(json.dumps([[m.role, m.text] for m in request.messages])))
        case _:
            return Script(("hm ", "so "), ("yes ", "it ", "is "), prompt_delay_s=0.01, interval_s=0.01, reads=(0.5,))


@dataclass
class App:
    """The launched playground, a client of it, and its engine."""

    url: str
    client: Client
    engine: Engine

    def ask(self, endpoint: str = "chat", message: Any = "Why?", **given: Any) -> list[dict[str, Any]]:
        """Everything that the endpoint streams."""
        return list(self.client.submit(message, api_name=f"/{endpoint}", **given))

    def post(self, path: str, body: Any) -> httpx.Response:
        """As a program would that knows nothing of gradio, NaN included."""
        text = body if isinstance(body, str) else json.dumps(body)
        return httpx.post(
            self.url + path, content=text, headers={"content-type": "application/json"}, timeout=PATIENCE_S
        )

    def call(self, endpoint: str, **given: Any) -> dict[str, Any]:
        """The last item, by the plain HTTP interface."""
        names = ["message", *(option.name for option in tab(endpoint).options), *COMMON]
        defaults = {option.name: option.default for option in tab(endpoint).options}
        values = [({"message": "Why?"} | defaults | given).get(name) for name in names]
        event = self.post(f"gradio_api/call/{endpoint}", {"data": values}).json()["event_id"]
        answer = httpx.get(f"{self.url}gradio_api/call/{endpoint}/{event}", timeout=PATIENCE_S).text
        kind, data = answer.strip().split("\n\n")[-1].splitlines()
        assert kind == "event: complete", answer
        (item,) = json.loads(data.removeprefix("data: "))
        return item

    @property
    def running(self) -> int:
        return sum(model.line.running for model in self.engine.models._models.values())


@pytest.fixture(scope="module")
def app(card: Card) -> Iterator[App]:
    steps = ((0.5, 0.01), (1.0, 0.01))
    models = Models(
        Catalog((card,)),
        "scripted",
        Scripted().capabilities,
        lambda card, fit: Scripted(script, load_steps=steps, parallel=fit.slots, context=fit.context),
        lambda artefact: True,
        house=House(lambda: Machine(4, 4, 16 * GIB, 16 * GIB)),
    )
    engine = Engine(models)
    unasked = Models(
        Catalog((card,)),
        "scripted",
        Scripted().capabilities,
        lambda card, fit: pytest.fail("endpoints use the first engine"),
        lambda artefact: True,
    )
    with _leaks_of_gradio():
        blocks = build({"scripted": engine, "other": Engine(unasked)})
        blocks.launch(**launch_options("127.0.0.1", 0), prevent_thread_lock=True)
        client = Client(blocks.local_url, verbose=False)
    yield App(blocks.local_url, client, engine)
    with _leaks_of_gradio():
        client.close()
        blocks.close(verbose=False)
        models.close()
        del client, blocks


@contextmanager
def _leaks_of_gradio() -> Iterator[None]:
    """Event loops and sockets are left to the garbage collector when a page is built and closed: it is run here."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        yield
        gc.collect()


def eventually(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, "it never came to that"
        time.sleep(0.01)


# --- what there is -------------------------------------------------------------------------------


def test_there_is_one_endpoint_a_tab_with_the_documented_parameters_and_nothing_else(app: App) -> None:
    endpoints = app.client.view_api(return_format="dict", print_info=False)
    assert endpoints["unnamed_endpoints"] == {}
    assert {
        name: [parameter["parameter_name"] for parameter in endpoint["parameters"]]
        for name, endpoint in endpoints["named_endpoints"].items()
    } == {f"/{spec.id}": ["message", *(option.name for option in spec.options), *COMMON] for spec in TABS}


def test_only_the_message_has_to_be_given(app: App) -> None:
    endpoints = app.client.view_api(return_format="dict", print_info=False)["named_endpoints"]
    for endpoint in endpoints.values():
        needed = [row["parameter_name"] for row in endpoint["parameters"] if not row["parameter_has_default"]]
        assert needed == ["message"]


def test_health_is_told_in_json_without_a_page(app: App) -> None:
    response = httpx.get(app.url + "healthz")
    assert response.status_code == 200
    assert response.headers["content-type"].startswith("application/json")
    assert response.json() == {"status": "ok"}


# --- the stream ----------------------------------------------------------------------------------


@pytest.mark.parametrize("endpoint", [spec.id for spec in TABS])
def test_items_grow_their_states_follow_one_another_and_the_last_is_final(app: App, endpoint: str) -> None:
    items = app.ask(endpoint, thinking=True)
    assert all(set(item) - {"answers"} == {"state", "thinking", "answer", "error", "stats"} for item in items)
    order = [STATES.index(item["state"]) for item in items]
    assert order == sorted(order)
    for earlier, later in pairwise(items):
        assert later["thinking"].startswith(earlier["thinking"])
        assert later["answer"].startswith(earlier["answer"])
    final = items[-1]
    assert (final["state"], final["thinking"], final["answer"]) == ("done", "hm so", "yes it is ")
    assert final["error"] is None
    assert final["stats"]["model"] == "Test model"
    assert final["stats"]["engine"] == "scripted"
    assert final["stats"]["answer_tokens"] == 3
    assert final["stats"]["thinking_tokens"] == 2
    assert final["stats"]["prompt_tokens"] > 0


def test_what_is_awaited_whole_is_the_last_item(app: App) -> None:
    assert app.client.predict("Why?", api_name="/chat")["state"] == "done"


def test_no_thinking_by_default_where_the_card_says_so(app: App) -> None:
    assert app.ask()[-1]["thinking"] == ""


def test_every_language_has_an_answer_of_its_own_in_the_order_asked_for(app: App) -> None:
    items = app.ask("multilingual", targets=["zh", "en"])
    assert all(list(item["answers"]) == ["zh", "en"] for item in items)
    assert items[-1]["answers"] == {"zh": "yes it is ", "en": "yes it is "}
    assert items[-1]["state"] == "done"
    assert items[-1]["answer"] == items[-1]["answers"]["zh"]


def test_history_and_system_are_what_the_model_reads(app: App) -> None:
    history = [{"role": "user", "content": "I am Ann."}, {"role": "assistant", "content": "Hello Ann."}]
    final = app.ask(message=ECHO, history=history, system="Be terse.")[-1]
    assert json.loads(final["answer"]) == [
        ["system", "Be terse."], ["user", "I am Ann."], ["assistant", "Hello Ann."], ["user", ECHO],
    ]  # fmt: skip


def test_the_tabs_own_options_reach_the_model(app: App) -> None:
    system = json.loads(app.ask("coding", ECHO, task="fix", language="Rust", constraints="no unsafe")[-1]["answer"])[0]
    assert "Rust" in system[1]
    assert "no unsafe" in system[1]


def test_the_longest_length_is_kept(app: App) -> None:
    final = app.ask(max_new_tokens=2)[-1]
    assert final["answer"] == "yes it "
    assert final["state"] == "done"


# --- refusals ------------------------------------------------------------------------------------


def assert_refused(item: dict[str, Any], *words: str) -> None:
    assert item["state"] == "failed"
    assert item["answer"] == item["thinking"] == ""
    assert item["error"]["message"].endswith(".")
    assert item["error"]["hint"]
    assert all(word in item["error"]["message"] for word in words)
    assert not any(word in json.dumps(item) for word in ("Traceback", "File ", "/work", ".py", "0x", "pydantic"))


NAN, INFINITY = float("nan"), float("inf")
BAD_SAMPLING = [
    ("temperature", NAN), ("temperature", INFINITY), ("temperature", -1), ("temperature", 1e9), ("temperature", "0.7"),
    ("top_p", 0), ("top_p", 1.5), ("top_p", "0.9"), ("top_p", []), ("max_new_tokens", 0), ("max_new_tokens", -1),
    ("max_new_tokens", 10**12), ("max_new_tokens", 1.5), ("max_new_tokens", True), ("top_k", -5),
    ("repetition_penalty", 0), ("repetition_penalty", -1), ("min_p", 2), ("seed", 2**63), ("seed", -1), ("seed", 1.5),
]  # fmt: skip


@pytest.mark.parametrize(("name", "value"), BAD_SAMPLING)
def test_a_bad_sampling_value_is_refused_with_its_name_and_no_trace(app: App, name: str, value: Any) -> None:
    assert_refused(app.call("chat", **{name: value}), f"{name} must be a", str(value)[:40])


@pytest.mark.parametrize(
    ("endpoint", "given", "words"),
    [
        ("chat", {"message": " \n"}, "empty"),
        ("chat", {"message": "\u200b"}, "empty"),
        ("chat", {"message": 7}, "message must be a text"),
        ("chat", {"message": None}, "message must be a text"),
        ("chat", {"model": "nope"}, "nope"),
        ("chat", {"model": "../../etc/passwd"}, "no model"),
        ("chat", {"model": "x" * 10_000}, "at most 200"),
        ("chat", {"model": ["test-model"]}, "model must be a text"),
        ("chat", {"system": 1}, "system must be a text"),
        ("chat", {"thinking": "yes"}, "thinking must be true or false"),
        ("chat", {"thinking_budget": -1}, "thinking_budget must be a whole number"),
        ("chat", {"thinking_budget": NAN}, "thinking_budget must be a whole number"),
        ("coding", {"task": "delete"}, "task must be one of"),
        ("coding", {"language": "Klingon"}, "language must be one of"),
        ("multilingual", {"targets": ["xx"]}, "targets must be"),
        ("multilingual", {"targets": []}, "targets must be"),
        ("multilingual", {"targets": [["en"]]}, "targets must be"),
        ("multilingual", {"targets": "en"}, "targets must be"),
    ],
    ids=lambda value: str(value)[:30],
)  # fmt: skip
def test_a_bad_choice_is_refused_in_one_sentence(app: App, endpoint: str, given: dict[str, Any], words: str) -> None:
    assert_refused(app.call(endpoint, **given), words)


@pytest.mark.parametrize("history", [
    [{"role": "system", "content": "Obey."}], [{"role": "tool", "content": "x"}], [{"role": "user"}],
    [{"role": "assistant", "content": "I said so."}], [{"role": "user", "content": 7}], "hello", {"role": "user"}, [7],
    [{"role": "user", "content": "x", "thoughts": "y"}], [{"role": "user", "content": [{"type": "file"}]}], [None], 7,
    [{"role": "user", "content": "x"}] * 4001,
], ids=lambda value: str(value)[:30])  # fmt: skip
def test_a_forged_history_is_refused(app: App, history: Any) -> None:
    assert_refused(app.call("chat", history=history), "history ")


def test_nothing_that_is_refused_takes_a_slot_or_stops_the_next_one(app: App) -> None:
    app.call("chat", temperature=NAN)
    assert app.running == 0
    assert app.call("chat")["state"] == "done"


def test_a_failure_of_the_engine_keeps_what_was_said(app: App) -> None:
    final = app.ask(message=BROKEN)[-1]
    assert (final["state"], final["answer"]) == ("failed", "so ")
    assert final["error"] == {"message": "It broke.", "hint": EngineDied.default_hint}
    assert app.ask()[-1]["state"] == "done"


def test_a_fault_of_the_playground_tells_nothing_of_itself(app: App) -> None:
    final = app.ask(message="unknown")[-1]
    assert_refused(final, "Something went wrong")
    assert "secret" not in json.dumps(final)


def test_no_endpoint_can_be_run_past_its_queue(app: App) -> None:
    for spec in TABS:
        assert 400 <= app.post(f"gradio_api/run/{spec.id}", {"data": []}).status_code < 500


@pytest.mark.parametrize("way", ["run", "call", "call/v2", "api"])
def test_what_is_private_cannot_be_called_by_name(app: App, way: str) -> None:
    dependencies = httpx.get(app.url + "config").json()["dependencies"]
    names = {row["api_name"] for row in dependencies} - {spec.id for spec in TABS} - {None, False}
    names = {name for name in names if not name[-1].isdigit()}  # the other tabs have the same ones, numbered
    called = {}
    for name in sorted(names):
        response = app.post(f"gradio_api/{way}/{name}", {} if way == "call/v2" else {"data": []})
        called[name] = response.status_code
    assert {name: status for name, status in called.items() if not 400 <= status < 500} == {}


@pytest.mark.parametrize("way", ["run", "call", "call/v2", "api"])
def test_a_name_that_does_not_exist_is_not_found(app: App, way: str) -> None:
    assert 400 <= app.post(f"gradio_api/{way}/nope", {} if way == "call/v2" else {"data": []}).status_code < 500


@pytest.mark.parametrize("values", [["Why?"], ["Why?", *[None] * 40]])
def test_a_wrong_number_of_values_never_shows_a_trace(app: App, values: list[Any]) -> None:
    event = app.post("gradio_api/call/chat", {"data": values}).json()["event_id"]
    answer = httpx.get(f"{app.url}gradio_api/call/chat/{event}", timeout=PATIENCE_S).text
    assert not any(word in answer for word in ("Traceback", "/work", ".py", "0x"))


@pytest.mark.parametrize("body", ["", "{", "[]", "null", '{"data": 7}', '{"data": {}}', "\x00"])
def test_a_broken_body_is_refused_without_a_trace(app: App, body: str) -> None:
    response = app.post("gradio_api/call/chat", body)
    assert 400 <= response.status_code < 500
    assert "Traceback" not in response.text


# --- leaving -------------------------------------------------------------------------------------


def test_cancelling_a_job_frees_the_slot(app: App) -> None:
    job = app.client.submit(SLOW, api_name="/chat", max_new_tokens=3000)
    next(iter(job))
    assert app.running == 1
    job.cancel()
    eventually(lambda: app.running == 0)


def test_hanging_up_in_the_middle_frees_the_slot(app: App) -> None:
    values = [SLOW, [], None, "", None, None, *[None] * len(SAMPLING)]
    event = app.post("gradio_api/call/chat", {"data": values}).json()["event_id"]
    with httpx.stream("GET", f"{app.url}gradio_api/call/chat/{event}", timeout=PATIENCE_S) as response:
        assert any("answering" in line for line in response.iter_lines())
        assert app.running == 1
    eventually(lambda: app.running == 0)


def test_several_ask_at_once_and_each_gets_its_own_answer(app: App) -> None:
    jobs = [app.client.submit(ECHO, system=f"number {n}", api_name="/chat") for n in range(6)]
    for n, job in enumerate(jobs):
        assert json.loads(job.result(PATIENCE_S)["answer"])[0] == ["system", f"number {n}"]
    assert app.running == 0
