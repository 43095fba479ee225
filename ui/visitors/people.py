"""Who asks. Everybody has a key: the name they signed in with, else a signed cookie of ours, or, where there is
neither, the address that they come from.

Thirty students may share one address, so it only counts for who refuses the cookie or calls an endpoint without one.
"""

from __future__ import annotations

import hashlib
import ipaddress
import secrets
import time
from dataclasses import dataclass, field, replace
from http.cookies import CookieError, SimpleCookie
from typing import Any

import gradio as gr
from itsdangerous import BadData, URLSafeTimedSerializer
from starlette.datastructures import Headers
from starlette.types import Scope

from backends.core.types import Asker
from backends.host.accounts import Accounts
from ui.visitors.forgotten import Forgotten

COOKIE = "playground_seat"
SEAT_SECONDS = 30 * 24 * 3600
NAME_SECONDS = 12 * 3600  # a school day; then the name or the class code is asked for again


@dataclass(frozen=True, slots=True)
class SignIn:
    """The ways in that the host has opened; without any, everybody may enter. `space_owner` is the host on a Space."""

    accounts: Accounts | None = None
    class_code: str = ""
    huggingface: bool = False
    space_owner: str = ""

    @property
    def required(self) -> bool:
        return bool(self.accounts or self.class_code or self.huggingface)

    @property
    def code_mark(self) -> str:
        """Tells this class code from the one before it, and not which it is."""
        return hashlib.sha256(self.class_code.encode()).hexdigest()[:8]


@dataclass(frozen=True, slots=True)
class Visitor:
    """Who sends a request. `key`: whom it counts for; `way`: how they signed in, 'users', 'class' or 'huggingface';
    `address`: where they come from, empty for who has signed in and so needs no address to be told from others."""

    key: str
    seat: str = ""
    name: str = ""
    way: str = ""
    host: bool = False
    address: str = field(default="", compare=False)


NAMELESS = Visitor("")


class People:
    """Gives out seats and knows them again.

    `proxies`: how many of our own stand between a visitor and this server; a scope is read as
    `ui.server.forwarding` leaves it. `alone`: nobody can reach it but from this machine, so that
    whoever does is its host, unless people have to sign in. `forgotten`: whose cookies let nobody in any more.
    """

    def __init__(
        self,
        key: bytes | None = None,
        proxies: int = 0,
        sign_in: SignIn | None = None,
        alone: bool = False,
        forgotten: Forgotten | None = None,
    ) -> None:
        self.proxies = proxies
        self.sign_in = sign_in or SignIn()
        self._alone = alone
        self._forgotten = forgotten or Forgotten()
        self._signer = URLSafeTimedSerializer(key or secrets.token_bytes(32), salt="seat")

    def visitor(self, scope: Scope) -> Visitor:
        """Whoever sent a request, as far as its cookies prove."""
        name = _huggingface_name(scope) if self.sign_in.huggingface else ""
        if name and _huggingface_mark(scope) not in self._forgotten:
            return Visitor(f"huggingface {name}", "", name, "huggingface", name == self.sign_in.space_owner)
        headers = Headers(scope=scope)
        told = self._read(headers)
        seat, name, way = (str(told.get(part, "")) for part in ("seat", "name", "way"))
        address = self.address(scope)
        visitor = Visitor(f"seat {seat}" if seat else f"address {address}", seat, address=address)
        if name and float(told.get("until", 0)) > time.time():
            account = self.sign_in.accounts.get(name) if way == "users" and self.sign_in.accounts else None
            if account:
                return replace(visitor, key=f"name {name}", name=name, way=way, host=account.host, address="")
            if way == "class" and self.sign_in.class_code and told.get("code") == self.sign_in.code_mark:
                return replace(visitor, name=name, way=way, address="")  # a nickname is nobody's own: the seat counts
        if self._alone and not self.sign_in.required:
            return replace(visitor, host=True)
        return visitor

    def may_enter(self, visitor: Visitor) -> bool:
        return bool(visitor.name) or not self.sign_in.required

    def new_seat(self, scope: Scope) -> str:
        """The Set-Cookie header of a seat that nobody has."""
        return self._cookie(scope, {"seat": secrets.token_hex(16)})

    def signed_in(self, scope: Scope, seat: str, name: str, way: str) -> str:
        """The Set-Cookie header of a seat whose owner has said who they are."""
        told = {
            "seat": seat or secrets.token_hex(16),
            "name": name,
            "way": way,
            "until": int(time.time()) + NAME_SECONDS,
        }
        return self._cookie(scope, told | ({"code": self.sign_in.code_mark} if way == "class" else {}))

    def forget(self, scope: Scope) -> str:
        """Lets nobody in any more with the cookies of this request. The Set-Cookie header that takes a seat away."""
        if seat := self._read(Headers(scope=scope)).get("seat"):
            self._forgotten.add(f"seat {seat}", SEAT_SECONDS)
        if _huggingface_name(scope):
            left = float(scope["session"]["oauth_info"]["expires_at"]) - time.time()
            self._forgotten.add(_huggingface_mark(scope), left)
        return f"{COOKIE}=; Path=/; HttpOnly; Max-Age=0{self._site(scope)}"

    def address(self, scope: Scope) -> str:
        client = scope.get("client")
        try:
            address = ipaddress.ip_address(client[0] if client else "")
        except ValueError:
            return "unknown"
        if address.version == 6:  # whoever has one has a whole network of them
            return str(ipaddress.ip_network((address, 64), strict=False))
        return str(address)

    def _cookie(self, scope: Scope, told: dict[str, Any]) -> str:
        signed = self._signer.dumps(told)
        return f"{COOKIE}={signed}; Path=/; HttpOnly; Max-Age={SEAT_SECONDS}{self._site(scope)}"

    def _read(self, headers: Headers) -> dict[str, Any]:
        try:
            cookie = SimpleCookie(headers.get("cookie", "")).get(COOKIE)
            told = self._signer.loads(cookie.value, max_age=SEAT_SECONDS) if cookie else {}
        except (CookieError, BadData):
            return {}
        if not isinstance(told, dict) or f"seat {told.get('seat')}" in self._forgotten:
            return {}
        return told

    def _site(self, scope: Scope) -> str:
        """A Space is shown in a frame of another site."""
        return "; SameSite=None; Secure; Partitioned" if scope["scheme"] == "https" else "; SameSite=Lax"


def _huggingface_name(scope: Scope) -> str:
    """As gradio's own sign-in keeps it in a session that it has signed."""
    told = scope.get("session", {}).get("oauth_info", {})
    if not isinstance(told, dict) or float(told.get("expires_at", 0)) <= time.time():
        return ""
    return str(told.get("userinfo", {}).get("preferred_username", ""))


def _huggingface_mark(scope: Scope) -> str:
    """Of one sign-in of one person: the session has no name of its own."""
    return f"huggingface {_huggingface_name(scope)} {scope['session']['oauth_info']['expires_at']}"


def visitor(request: gr.Request | None) -> Visitor:
    """Who sent an event of the page or a call of an endpoint."""
    state = getattr(getattr(request, "request", None), "state", None)
    found = getattr(state, "visitor", None)
    return found if isinstance(found, Visitor) else NAMELESS


def asker(request: gr.Request, conversation: str = "") -> Asker:
    """Whose request it is, for the engine room."""
    found = visitor(request)
    return Asker(found.key, conversation, found.address)
