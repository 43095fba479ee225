"""What the playground keeps of the speed of an engine elsewhere, for one user, for eight and for a full class."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator

import httpx

from backends.adapters.openai.client import Wire
from backends.adapters.openai.dialects import LLAMA_SERVER
from backends.adapters.openai.links import Links
from backends.catalog.cards import Catalog
from backends.core.types import GenerationRequest, Message
from bench.apps import STARTER
from bench.browser import Site
from bench.processes import keep_to, serve
from bench.real_engine import MODEL, ask_directly, opened_page, seconds_through
from bench.report import Figure, median
from ui.conversation.tabs import tab

TOKENS = 60
USERS = {1: 0.98, 8: 0.97, 32: 0.95}
"""How many ask at once, and the share of the server's own tokens a second that the playground has to keep."""
GREEDY = {"temperature": 0.0, "max_new_tokens": TOKENS, "seed": 1}

NOTE = (
    f"{MODEL} on a llama-server with {max(USERS)} slots, which has one half of the processor to itself, as an engine "
    "on another machine would; page and clients run on the other. Each user asks for "
    f"{TOKENS} tokens, greedy, with the same body; all tokens over the time from the first post to the end of the last "
    "stream, through the page as a browser drives it. The ratio is the median over the pairs. The rows below alike."
)

Ask = Callable[[str], object]
Prepare = Callable[[], Ask]
"""Makes ready for a question, and returns what asks it."""


def measure(quick: bool) -> Iterator[Figure]:
    """Alternately through the page and past it; the ratio is taken pair by pair, as the machine's pace drifts."""
    failed: list[str] = []
    keep_to(1)  # the clients, too, are not where the engine is; this group is measured last
    with (
        serve("engine_elsewhere") as engine,
        serve("remote", engine.url, engine.told["key"]) as page,
        httpx.Client() as no,
    ):
        site = Site(page.url)
        wire = Wire(Links(lambda: no), LLAMA_SERVER, STARTER)

        def directly() -> Ask:
            def ask(text: str) -> None:
                if ask_directly(engine.url, engine.told["key"], _body(wire, text)).tokens != TOKENS:
                    raise RuntimeError("the server's answer had another length")

            return ask

        def by_page() -> Ask:
            page = opened_page(site, GREEDY)
            return lambda text: seconds_through(page, text, TOKENS)

        for users, least in USERS.items():
            pairs = 1 if quick else {1: 11, 8: 5, 32: 3}[users]
            for prepare in (directly, by_page):  # fills the prompt cache: not counted
                _rate(users, prepare, failed)
            rates = [(_rate(users, directly, failed), _rate(users, by_page, failed)) for _ in range(pairs)]
            ratio = median([ours / theirs for theirs, ours in rates])
            yield Figure(
                f"tokens a second of an engine elsewhere, {users} {'users' if users > 1 else 'user'}",
                "the same server, asked directly",
                f"{median([ours for _, ours in rates]):.1f}",
                f"{median([theirs for theirs, _ in rates]):.1f}",
                f"{pairs} pairs" if pairs > 1 else "1 pair",
                f"{ratio:.3f}",
                f"at least {least}",
                ratio >= least,
                NOTE if users == 1 else "",
            )
    yield Figure(
        f"answers that failed under {max(USERS)} users and fewer",
        "",
        str(len(failed)),
        "",
        "all of the above",
        target="none",
        met=not failed,
        note=failed[0] if failed else "an answer of another length counts as failed.",
    )


def _body(wire: Wire, text: str) -> dict[str, object]:
    card = Catalog.read().get(STARTER)
    sampling = card.official("chat", False).values.model_copy(update=GREEDY)
    messages = (Message.of("system", tab("chat").system), Message.of("user", text))
    return wire.body(GenerationRequest(card, messages, sampling))


def _rate(users: int, prepare: Prepare, failed: list[str]) -> float:
    """Tokens a second in all, when so many ask in the same moment; what fails is added to `failed`."""
    together = threading.Barrier(users + 1)

    def user(number: int) -> None:
        ask = prepare()
        together.wait()
        try:
            ask(f"Write all the numbers from {number + 1} to 1000, with a space after each:")
        except (OSError, RuntimeError, StopIteration) as exc:
            failed.append(f"{type(exc).__name__}: {exc}"[:200])

    threads = [threading.Thread(target=user, args=(number,)) for number in range(users)]
    for thread in threads:
        thread.start()
    together.wait()
    started = time.perf_counter()
    for thread in threads:
        thread.join()
    return users * TOKENS / (time.perf_counter() - started)
