"""The headers under which nothing that a model writes can call out, run, or be shown inside of somebody else's page."""

from __future__ import annotations

import re
import secrets

from starlette.datastructures import MutableHeaders
from starlette.types import Message, Send

_SCRIPT = re.compile(rb"<script(?=[\s>])")
_FIRST_OF_GRADIO = b"<script>window.gradio_config"
_OURS = b"<script src=page.js></script>"  # has to run before what reads the browser's storage and language


class Guarded:
    """Stands for `send` of one request. `frames`: the origins that may show the playground in a frame.

    The page's own scripts are told from all others by a nonce, which is put into the HTML on its way out. Gradio makes
    functions of the page's handlers from text, hence 'unsafe-eval'; it sets styles on elements, hence 'unsafe-inline'.
    """

    def __init__(self, send: Send, frames: tuple[str, ...], cookies: list[str]) -> None:
        self._send, self._cookies = send, cookies
        self._nonce = secrets.token_urlsafe(16)
        self._start: Message | None = None
        self._html = b""
        self.started = False
        ancestors = " ".join(frames) or "'none'"
        self._policy = (
            f"default-src 'self'; script-src 'self' 'nonce-{self._nonce}' 'unsafe-eval';"
            " style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; media-src 'self' data: blob:;"
            " font-src 'self' data:; connect-src 'self'; worker-src 'self' blob:; object-src 'none';"
            f" frame-src 'none'; base-uri 'self'; form-action 'self'; frame-ancestors {ancestors}"
        )

    async def send(self, message: Message) -> None:
        self.started = True
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            headers["content-security-policy"] = self._policy
            headers["referrer-policy"] = "same-origin"
            headers["x-content-type-options"] = "nosniff"
            for cookie in self._cookies:
                headers.append("set-cookie", cookie)
            if headers.get("content-type", "").startswith("text/html"):
                self._start = message  # goes out with the whole page, whose length is not known before
                return
        elif self._start is not None and message["type"] == "http.response.body":
            self._html += message.get("body", b"")
            if message.get("more_body", False):
                return
            # Without quotes, which would end a text of JSON that happens to hold a '<script'.
            page = self._html.replace(_FIRST_OF_GRADIO, _OURS + _FIRST_OF_GRADIO, 1)
            page = _SCRIPT.sub(b"<script nonce=" + self._nonce.encode(), page)
            MutableHeaders(scope=self._start)["content-length"] = str(len(page))
            await self._send(self._start)
            message = {"type": "http.response.body", "body": page}
        await self._send(message)
