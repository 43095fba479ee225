"""How much a request may bring, all of a person's together, and how long it may take to bring it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import NamedTuple

from limits import RateLimitItemPerMinute
from limits.storage import MemoryStorage
from limits.strategies import FixedWindowRateLimiter
from starlette.datastructures import Headers
from starlette.types import Message, Receive, Scope

from backends.pictures.decoder import MAX_BYTES
from ui.conversation.pictures import MOST_PICTURES
from ui.visitors.uploads import FORGET_SECONDS

MOST_JSON = 16 * 2**20  # an imported conversation with its pictures, and what a page keeps in its browser
MOST_UPLOAD = (MOST_PICTURES + 1) * MAX_BYTES  # bytes
MOST_UPLOADS = 2 * MOST_UPLOAD  # of one person, for as long as the first of them may lie on the disk
MOST_KEPT = 128 * 2**20  # that one person's pages bring within an hour, for which they are kept once they are closed
PEOPLE_AT_AN_ADDRESS = 10  # who all send as much as they may; a class that shares one sends far less
MOST_DIGITS = 18  # Python makes no number of very many
FORGET_MINUTES = FORGET_SECONDS * 3 // 2 // 60  # gradio looks twice in that time for what is too old
PIECE_SECONDS = 20.0
WHOLE_SECONDS = 120.0


class Fault(NamedTuple):
    """What to answer instead; `wait_s` is told where waiting helps."""

    status: int
    sentence: str
    wait_s: int = 0


Charge = Callable[[int, bool], Fault | None]
"""Counts so many bytes, or only looks whether there is room for them."""


class Sums:
    """What each person has brought, and each address, of what lies on the disk or in memory for a while.

    The count begins with the first piece and is dropped as a whole, when what came first is forgotten.
    """

    def __init__(self) -> None:
        self._counted = FixedWindowRateLimiter(MemoryStorage())

    def uploads(self, person: str, address: str) -> Charge:
        return self._charge("uploads", person, address, MOST_UPLOADS, FORGET_MINUTES)

    def kept(self, person: str, address: str) -> Charge:
        return self._charge("kept", person, address, MOST_KEPT, 60)

    def _charge(self, kind: str, person: str, address: str, most: int, minutes: int) -> Charge:
        shared = most * PEOPLE_AT_AN_ADDRESS
        sums = [(RateLimitItemPerMinute(most, minutes), "person", person)]
        sums += [(RateLimitItemPerMinute(shared, minutes), "address", address)]

        def charge(size: int, only_look: bool) -> Fault | None:
            ask = self._counted.test if only_look else self._counted.hit
            for limit, *whose in sums:
                if size and not ask(limit, kind, *whose, cost=size):
                    ends = self._counted.get_window_stats(limit, kind, *whose).reset_time
                    wait_s = max(1, round(ends - time.time()))
                    told = f"You have sent the {limit.amount // 2**20} MiB that are allowed within {minutes} minutes."
                    return Fault(429, f"{told} Wait {-(-wait_s // 60)} minutes and send it again.", wait_s)
            return None

        return charge


def free(size: int, only_look: bool) -> Fault | None:
    """Counts nothing."""
    return None


class Body:
    """Stands for `receive` of one request. `fault` is what to answer once it was too much."""

    def __init__(self, scope: Scope, receive: Receive, *, upload: bool = False, charge: Charge = free) -> None:
        self._receive, self._charge = receive, charge
        self._most = MOST_UPLOAD if upload else MOST_JSON
        self._bytes = 0
        self._until = time.monotonic() + WHOLE_SECONDS
        self._complete = False
        self._again: list[Message] = []
        self.fault: Fault | None = None
        told = Headers(scope=scope).get("content-length", "0")
        if not told.isdecimal():
            self.fault = Fault(400, "The length of the request is not a number.")
        elif len(told) > MOST_DIGITS or int(told) > self._most:
            self._too_much()
        else:
            self.fault = charge(int(told), True)

    async def receive(self) -> Message:
        """As ASGI's; a request that brings too much or takes too long looks to the app as if it had been given up."""
        if self._again:
            return self._again.pop(0)
        if self._complete:
            return await self._receive()
        if self.fault is None:
            try:
                left = min(PIECE_SECONDS, self._until - time.monotonic())
                message = await asyncio.wait_for(self._receive(), max(0.0, left))
            except TimeoutError:
                self.fault = Fault(408, "The request took too long to arrive. Send it again.")
            else:
                self._complete = message["type"] != "http.request" or not message.get("more_body", False)
                size = len(message.get("body", b""))
                self._bytes += size
                if self._bytes > self._most:
                    self._too_much()
                else:
                    self.fault = self._charge(size, False)
                if self.fault is None:
                    return message
        self._complete = True
        return {"type": "http.disconnect"}

    async def whole(self) -> bytes:
        """All that there is of it; `receive` gives it once more."""
        messages = [await self.receive()]
        while not self._complete:
            messages.append(await self.receive())
        self._again = messages
        return b"".join(message.get("body", b"") for message in messages)

    def replace(self, whole: bytes) -> None:
        """Has `receive` give this instead."""
        self._again = [{"type": "http.request", "body": whole, "more_body": False}]

    def _too_much(self) -> None:
        self.fault = Fault(
            413, f"The request is larger than the {self._most // 2**20} MiB that are allowed. Send less."
        )
