"""What the page costs on top of the engine: time to first token alone and in a crowd, and processor time per token.

The scripted engine says its words at known moments, so whatever a visitor waits beyond them is the page's doing.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Iterator
from itertools import count

from bench.browser import Answered, Page, Site, ask_endpoint
from bench.processes import Served, serve
from bench.report import Figure, median, ms, p95
from bench.script import Question

DELAY_SECONDS = 0.1  # what the engine takes to read a short prompt
USERS = 32
PAUSE_SECONDS = 3.0
TURNS_BEFORE = 20  # 40 messages
LONG_ANSWER = 3000  # tokens
CHAT_INTERFACE = "plain gr.ChatInterface"

_numbers = count(1)


def measure(quick: bool) -> Iterator[Figure]:
    with serve("playground") as ours, serve("chat_interface") as plain:
        sites = Site(ours.url), Site(plain.url)
        for site in sites:  # loads the scripted model, and every module that the first answer needs
            _ask(Page(site), tokens=5)
        yield from _one_user(*sites, n=5 if quick else 40)
        yield from _crowd(*sites, rounds=1 if quick else 2)
        yield _processor_time(ours, plain, *sites, rounds=1 if quick else 3)


def _ask(page: Page, tokens: int, interval_s: float = 0.02, delay_s: float = DELAY_SECONDS) -> Answered:
    """Asks, and makes sure that the whole answer came."""
    question = Question(f"q{next(_numbers)}", tokens, interval_s, delay_s)
    answered = page.ask(question.text, question.first)
    if question.last not in str(answered.final):
        raise RuntimeError(f"the answer did not come whole: {str(answered.final)[-500:]}")
    return answered


def _added(page: Page, tokens: int, interval_s: float = 0.02, delay_s: float = DELAY_SECONDS) -> float:
    """Seconds to the first token beyond the engine's own."""
    first_s = _ask(page, tokens, interval_s, delay_s).first_s
    assert first_s is not None
    return first_s - delay_s


def _one_user(ours: Site, plain: Site, n: int) -> Iterator[Figure]:
    page_s, plain_s, at_once_s, plain_at_once_s, endpoint_s = [], [], [], [], []
    for _ in range(n):
        page_s.append(_added(Page(ours), tokens=10))
        plain_s.append(_added(Page(plain), tokens=10))
    for _ in range(n // 3 + 1):
        at_once_s.append(_added(Page(ours), tokens=10, delay_s=0.0))
        plain_at_once_s.append(_added(Page(plain), tokens=10, delay_s=0.0))
        question = Question(f"q{next(_numbers)}", 10, 0.02, DELAY_SECONDS)
        endpoint_s.append(ask_endpoint(ours, question.text, question.first) - DELAY_SECONDS)
    yield Figure(
        "added time to first token, one user",
        CHAT_INTERFACE,
        f"{ms(median(page_s))}, p95 {ms(p95(page_s))}",
        f"{ms(median(plain_s))}, p95 {ms(p95(plain_s))}",
        str(n),
        f"{median(page_s) / median(plain_s):.2f}",
        "median 30 ms, p95 60 ms",
        median(page_s) <= 0.030 and p95(page_s) <= 0.060,
        f"first turn of a page that has just been opened; from just before the browser's first post to the stream's "
        f"message that holds the first token, less the script's own {ms(DELAY_SECONDS)}. A browser needs one post for "
        "the playground and three in a row for a ChatInterface, which are sent here as it sends them.",
    )
    yield Figure(
        "the same, engine that answers at once",
        CHAT_INTERFACE,
        f"{ms(median(at_once_s))}, p95 {ms(p95(at_once_s))}",
        f"{ms(median(plain_at_once_s))}, p95 {ms(p95(plain_at_once_s))}",
        str(len(at_once_s)),
        f"{median(at_once_s) / median(plain_at_once_s):.2f}",
        note="no delay in the script to hide the page's own work behind.",
    )
    yield Figure(
        "the same through the endpoint /chat",
        "",
        f"{ms(median(endpoint_s))}, p95 {ms(p95(endpoint_s))}",
        "",
        str(len(endpoint_s)),
        note=f"plain HTTP, as docs/api.md says to call it; the script's delay is {ms(DELAY_SECONDS)}.",
    )


def _crowd(ours: Site, plain: Site, rounds: int) -> Iterator[Figure]:
    ours_s: dict[str, list[float]] = {"at once": [], "meanwhile": []}
    plain_s: dict[str, list[float]] = {"at once": [], "meanwhile": []}
    for _ in range(rounds):
        _ask_together(ours, ours_s)
        _ask_together(plain, plain_s)
    notes = {
        "at once": f"{USERS} pages are open and all send their first question in the same moment; each gets 200 "
        "tokens at 30 a second; the client is one process with a thread for each.",
        "meanwhile": f"the two further questions of the same {USERS} users, each sent up to {PAUSE_SECONDS:.0f} s "
        "after their last answer, while the others' answers stream.",
    }
    names = {
        "at once": f"added time to first token, {USERS} users send at once",
        "meanwhile": f"the same, {USERS} users in the middle of their chats",
    }
    for key, name in names.items():
        us, them = ours_s[key], plain_s[key]
        yield Figure(
            name,
            f"{CHAT_INTERFACE}, no concurrency limit",
            f"{ms(median(us))}, p95 {ms(p95(us))}",
            f"{ms(median(them))}, p95 {ms(p95(them))}",
            str(len(us)),
            f"{median(us) / median(them):.2f}",
            "a quarter of it",
            median(us) <= median(them) / 4,
            notes[key],
        )


def _ask_together(site: Site, added: dict[str, list[float]]) -> None:
    """One round: every user asks three times, the first time all in the same moment."""
    together = threading.Barrier(USERS)
    pages = [Page(site) for _ in range(USERS)]
    before = sum(map(len, added.values()))

    def user(page: Page) -> None:
        together.wait()
        added["at once"].append(_added(page, tokens=200, interval_s=1 / 30))
        for _ in range(2):
            time.sleep(random.uniform(0, PAUSE_SECONDS))
            added["meanwhile"].append(_added(page, tokens=200, interval_s=1 / 30))

    threads = [threading.Thread(target=user, args=(page,)) for page in pages]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if sum(map(len, added.values())) < before + 3 * USERS:
        raise RuntimeError(f"not every one of the {USERS} users got all answers")


def _processor_time(ours: Served, plain: Served, our_site: Site, plain_site: Site, rounds: int) -> Figure:
    ours_s, plain_s, took = [], [], []
    for _ in range(rounds):
        ours_s.append(_per_token(ours, our_site)[0])
        seconds, whole = _per_token(plain, plain_site)
        plain_s.append(seconds)
        took.append(whole)
    return Figure(
        "server's processor time per streamed token",
        CHAT_INTERFACE,
        f"{1e6 * median(ours_s):,.0f} µs",
        f"{1e6 * median(plain_s):,.0f} µs",
        f"{rounds} x {LONG_ANSWER:,} tokens",
        f"{median(plain_s) / median(ours_s):.1f} times less",
        "5 times less",
        median(plain_s) >= 5 * median(ours_s),
        f"user and system time of the server's process over an answer of {LONG_ANSWER:,} tokens that the engine makes "
        f"at 1,000 a second, in a chat of {2 * TURNS_BEFORE} messages; the scripted engine runs in the same process. "
        f"The ChatInterface cannot keep up and takes {median(took):.0f} s for the {LONG_ANSWER / 1000:.0f} s.",
    )


def _per_token(served: Served, site: Site) -> tuple[float, float]:
    """Processor seconds a token of one long answer at the end of a chat, and how long it took."""
    page = Page(site)
    for _ in range(TURNS_BEFORE):
        _ask(page, tokens=30, interval_s=0.001, delay_s=0.0)
    before = served.cpu_seconds()
    answered = _ask(page, LONG_ANSWER, interval_s=0.001)
    return (served.cpu_seconds() - before) / LONG_ANSWER, answered.done_s
