"""The server that Gradio starts, with two changes: no header of a visitor's is taken for a proxy's, and a connection
that asks nothing is closed.

uvicorn believes 127.0.0.1, and whoever FORWARDED_ALLOW_IPS names, what it says of who asks:
`ui.server.forwarding` decides that. And it waits without end for the rest of a request's head, or
of a body that was refused.
"""

from __future__ import annotations

import asyncio
import inspect
from functools import partial
from types import SimpleNamespace
from typing import Any

import gradio.http_server
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol, RequestResponseCycle

HEAD_SECONDS = 20.0
"""How long a connection may take to bring a whole head, counted from its opening or from the head's first byte."""


class ImpatientProtocol(H11Protocol):
    """Where no request is being answered, what comes has to become one in time; a drip of bytes wins no more of it.
    Between two requests uvicorn's own limit for idle connections counts."""

    _given_up: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._watch()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._unwatch()

    def _watch(self) -> None:
        if self.cycle is not None and not self.cycle.response_complete:
            self._unwatch()
        elif self._given_up is None and not self.transport.is_closing():
            self._given_up = self.loop.call_later(HEAD_SECONDS, self.transport.close)

    def _unwatch(self) -> None:
        if self._given_up is not None:
            self._given_up.cancel()
            self._given_up = None


def install() -> None:
    """Has Gradio start its server so. Raises RuntimeError where that cannot be done."""
    settings = inspect.signature(uvicorn.Config).parameters
    starts_so = "uvicorn.Config(" in inspect.getsource(gradio.http_server.start_server)
    tells = "response_complete" in inspect.signature(RequestResponseCycle.__init__).parameters or (
        "self.response_complete = False" in inspect.getsource(RequestResponseCycle.__init__)
    )
    if not (starts_so and tells and {"http", "proxy_headers"} <= settings.keys()):
        raise RuntimeError(
            "This version of gradio or uvicorn starts its server in another way than the playground changes it;"
            " install the versions of requirements.txt."
        )
    config: Any = partial(uvicorn.Config, http=ImpatientProtocol, proxy_headers=False)
    gradio.http_server.uvicorn = SimpleNamespace(Config=config, Server=uvicorn.Server)
