"""How much a request may bring, and how long it may take to bring it: uploads, and JSON like all else."""

from __future__ import annotations

import asyncio
import time

from starlette.datastructures import Headers
from starlette.types import Message, Receive, Scope

from backends.pictures import MAX_BYTES
from ui.pictures import MOST_PICTURES

MOST_JSON = 16 * 2**20  # an imported conversation with its pictures, and what a page keeps in its browser
MOST_UPLOAD = (MOST_PICTURES + 1) * MAX_BYTES  # bytes
MOST_DIGITS = 18  # Python makes no number of very many
PIECE_SECONDS = 20.0
WHOLE_SECONDS = 120.0


class Body:
    """Stands for `receive` of one request. `fault` is what to answer, (status, sentence), once it was too much."""

    def __init__(self, scope: Scope, receive: Receive) -> None:
        self._receive = receive
        self._most = MOST_UPLOAD if scope["path"].rstrip("/") == "/gradio_api/upload" else MOST_JSON
        self._bytes = 0
        self._until = time.monotonic() + WHOLE_SECONDS
        self._complete = False
        self._again: list[Message] = []
        self.fault: tuple[int, str] | None = None
        told = Headers(scope=scope).get("content-length", "0")
        if not told.isdecimal():
            self.fault = (400, "The length of the request is not a number.")
        elif len(told) > MOST_DIGITS or int(told) > self._most:
            self._too_much()

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
                self.fault = (408, "The request took too long to arrive. Send it again.")
            else:
                self._complete = message["type"] != "http.request" or not message.get("more_body", False)
                self._bytes += len(message.get("body", b""))
                if self._bytes <= self._most:
                    return message
                self._too_much()
        self._complete = True
        return {"type": "http.disconnect"}

    async def whole(self) -> bytes:
        """All that there is of it; `receive` gives it once more."""
        messages = [await self.receive()]
        while not self._complete:
            messages.append(await self.receive())
        self._again = messages
        return b"".join(message.get("body", b"") for message in messages)

    def _too_much(self) -> None:
        self.fault = (413, f"The request is larger than the {self._most // 2**20} MiB that are allowed. Send less.")
