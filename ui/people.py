"""Who asks. Everybody has a key: a signed cookie of ours, or, where there is none, the address that they come from.

Thirty students may share one address, so it only counts for who refuses the cookie or calls an endpoint without one.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import secrets
from dataclasses import dataclass
from http.cookies import CookieError, SimpleCookie

import gradio as gr
from starlette.datastructures import Headers
from starlette.types import Scope

COOKIE = "playground_seat"
KEPT_SECONDS = 30 * 24 * 3600


@dataclass(frozen=True, slots=True)
class Asker:
    """`person`: the key under which turns are taken; `conversation`: that for engines which keep one on a replica."""

    person: str = ""
    conversation: str = ""


NOBODY = Asker()


class People:
    """Gives out seats and knows them again. `proxies`: how many of our own stand between a visitor and this server."""

    def __init__(self, proxies: int = 0, key: bytes | None = None) -> None:
        self._proxies = proxies
        self._key = key or secrets.token_bytes(32)

    def seat(self, headers: Headers) -> str:
        """The seat that a request's cookie names; empty where it has none of ours."""
        try:
            cookie = SimpleCookie(headers.get("cookie", "")).get(COOKIE)
        except CookieError:
            return ""
        seat, _, signature = (cookie.value if cookie else "").partition(".")
        return seat if seat and hmac.compare_digest(signature, self._sign(seat)) else ""

    def new_seat(self, scope: Scope) -> str:
        """The Set-Cookie header of a seat that nobody has. A Space is shown in a frame of another site."""
        seat = secrets.token_hex(16)
        forwarded = Headers(scope=scope).get("x-forwarded-proto", "") if self._proxies else ""
        secure = "https" in (scope["scheme"], forwarded.rpartition(",")[2].strip())
        site = "; SameSite=None; Secure; Partitioned" if secure else "; SameSite=Lax"
        return f"{COOKIE}={seat}.{self._sign(seat)}; Path=/; HttpOnly; Max-Age={KEPT_SECONDS}{site}"

    def key(self, scope: Scope) -> str:
        """Whom a request counts for."""
        headers = Headers(scope=scope)
        if seat := self.seat(headers):
            return f"seat {seat}"
        return f"address {self._address(scope, headers)}"

    def _address(self, scope: Scope, headers: Headers) -> str:
        """Of the visitor, as the outermost of our own proxies saw it; what stands before that anybody can write."""
        client = scope.get("client")
        addresses = [part.strip() for part in headers.get("x-forwarded-for", "").split(",") if part.strip()]
        addresses.append(client[0] if client else "")
        seen = addresses[-1 - self._proxies :][0]
        try:
            address = ipaddress.ip_address(seen)
        except ValueError:
            return "unknown"
        if address.version == 6:  # whoever has one has a whole network of them
            return str(ipaddress.ip_network((address, 64), strict=False))
        return str(address)

    def _sign(self, seat: str) -> str:
        return hmac.new(self._key, seat.encode(), hashlib.sha256).hexdigest()[:32]


def person(request: gr.Request) -> str:
    """The key of who sent a request: the name they signed in with, else what `People.key` says."""
    if username := getattr(request, "username", None):
        return f"name {username}"
    state = getattr(getattr(request, "request", None), "state", None)
    return str(getattr(state, "person", ""))
