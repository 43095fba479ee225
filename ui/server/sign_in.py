"""The door with a lock: the page that asks for a name and password or for a class code, and being forgotten.

`POST /login` takes the fields that gradio_client's `auth` sends, so a program signs in as a person does.
"""

from __future__ import annotations

import hmac
import html
import secrets
from pathlib import Path
from typing import Any

from limits import RateLimitItemPerMinute
from limits.storage import MemoryStorage
from limits.strategies import FixedWindowRateLimiter
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response

from backends.core.logs import logger
from ui.conversation.texts import language_for, say_for
from ui.server.routes import OwnRoute
from ui.visitors import owners
from ui.visitors.people import People
from ui.visitors.sessions import Sessions

log = logger(__name__)

TEMPLATE = Path(__file__).resolve().parents[1] / "static" / "sign_in.html"
WRONG = {"seat": 5, "name": 10, "address": 60}
"""How many wrong passwords a minute one seat, one name and one address may send."""
ADJECTIVES = (
    "amber", "brave", "calm", "clever", "coral", "eager", "gentle", "golden", "happy", "jolly", "kind", "lively",
    "lucky", "merry", "mellow", "nimble", "proud", "quick", "quiet", "rosy", "silver", "sunny", "swift", "wise",
)  # fmt: skip
ANIMALS = (
    "badger", "beaver", "crane", "deer", "dolphin", "eagle", "falcon", "finch", "fox", "hare", "heron", "koala",
    "lark", "lynx", "marten", "otter", "owl", "panda", "puffin", "raven", "robin", "seal", "swan", "turtle",
)  # fmt: skip

Tries = list[tuple[RateLimitItemPerMinute, tuple[str, str]]]


class SignInPages:
    """The routes in front of the playground. `sessions` knows the answers that run for a page."""

    def __init__(self, people: People, sessions: Sessions) -> None:
        self._people, self._sessions = people, sessions
        self._wrong = FixedWindowRateLimiter(MemoryStorage())
        self._nicknames: set[str] = set()

    @property
    def routes(self) -> list[OwnRoute]:
        return [
            OwnRoute("/login", self.login, "public", methods=["GET", "POST"]),
            OwnRoute("/forget", self.forget, "signed_in", methods=["POST"]),
        ]

    async def login(self, request: Request) -> Response:
        if request.method == "GET":
            return self._page(request)
        async with request.form(max_files=0, max_fields=10, max_part_size=10_000) as form:
            name, password = str(form.get("username", "")).strip(), str(form.get("password", ""))
        tries = self._tries(request, name)
        if not self._may_try(tries):
            return self._refusal(request, 429, "sign_in_slow")
        signed_in = await run_in_threadpool(self._check, name, password)
        if not self._may_try(tries):  # others were looked at meanwhile; who sends many at once has no more tries
            return self._refusal(request, 429, "sign_in_slow")
        if signed_in is None:
            for item, key in tries:
                self._wrong.hit(item, *key)
            log.info("sign-in refused", person=request.state.visitor.key)
            return self._refusal(request, 401, "sign_in_wrong")
        log.info("signed in", person=request.state.visitor.key, way=signed_in[1])
        cookie = self._people.signed_in(request.scope, request.state.visitor.seat, *signed_in)
        answer: Response = RedirectResponse("./", 303) if _is_browser(request) else JSONResponse({"success": True})
        answer.headers.append("set-cookie", cookie)
        return answer

    async def forget(self, request: Request) -> Response:
        """Ends what runs for this person, forgets their pages and their seat, and signs them out, whoever has kept the
        cookie. The page clears its browser."""
        holder, visitor = request.app.state_holder, request.state.visitor
        if visitor.seat or visitor.name:
            for page in owners.pages_of(holder, visitor.key):
                self._sessions.close(page)
                owners.forget(holder, page)
        answer = JSONResponse({"forgotten": True})
        answer.headers.append("set-cookie", await run_in_threadpool(self._people.forget, request.scope))
        request.scope.get("session", {}).clear()
        return answer

    def _check(self, name: str, password: str) -> tuple[str, str] | None:
        """(name, way) of who has given the right password or class code."""
        sign_in = self._people.sign_in
        if name and sign_in.accounts and sign_in.accounts.check(name, password):
            return name, "users"
        if sign_in.class_code and hmac.compare_digest(password.strip().encode(), sign_in.class_code.encode()):
            return self._nickname(), "class"
        return None

    def _nickname(self) -> str:
        """One that nobody else was given, as long as there are any."""
        for _ in range(50):
            nickname = f"{secrets.choice(ADJECTIVES)} {secrets.choice(ANIMALS)}"
            if nickname not in self._nicknames:
                break
        else:
            nickname = f"{nickname} {len(self._nicknames)}"
        self._nicknames.add(nickname)
        return nickname

    def _may_try(self, tries: Tries) -> bool:
        return all(self._wrong.test(item, *key) for item, key in tries)

    def _tries(self, request: Request, name: str) -> Tries:
        keys = {
            "seat": request.state.visitor.key,
            "name": name[:100],
            "address": self._people.address(request.scope),
        }
        return [(RateLimitItemPerMinute(WRONG[kind]), (kind, key)) for kind, key in keys.items() if key]

    def _refusal(self, request: Request, status: int, key: str) -> Response:
        headers = {"retry-after": "60"} if status == 429 else {}
        if _is_browser(request):
            answer = self._page(request, key)
            answer.status_code = status
            answer.headers.update(headers)
            return answer
        return JSONResponse({"error": say_for(request)(key)}, status, headers)

    def _page(self, request: Request, problem: str = "") -> Response:
        sign_in, say = self._people.sign_in, say_for(request)
        if not sign_in.required:
            return RedirectResponse("./", 303)

        def form(*fields: str) -> str:
            inputs = "".join(_INPUTS[field].format(label=html.escape(say(f"sign_in_{field}"))) for field in fields)
            button = f"<button>{html.escape(say('sign_in'))}</button>"
            return f"<form method='post' action='login'>{inputs}{button}</form>"

        parts = [form("code")] if sign_in.class_code else []
        if sign_in.accounts:
            named = form("name", "password")
            summary = f"<summary>{html.escape(say('sign_in_with_name'))}</summary>"
            parts.append(f"<details>{summary}{named}</details>" if parts else named)
        if sign_in.huggingface:
            parts.append(f"<a class='button' href='login/huggingface'>{html.escape(say('sign_in_huggingface'))}</a>")
        told: dict[str, Any] = {
            "LANGUAGE": language_for(request),
            "TITLE": html.escape(say("title")),
            "PROBLEM": f"<p role='alert'>{html.escape(say(problem))}</p>" if problem else "",
            "FORMS": "".join(parts),
            "PRIVACY": html.escape(say("sign_in_privacy")),
        }
        page = TEMPLATE.read_text("utf-8")
        for name, text in told.items():
            page = page.replace(f"<!-- {name} -->", text)
        return HTMLResponse(page)


_INPUTS = {
    "code": "<label>{label}<input name='password' autocomplete='off' autocapitalize='off' required autofocus></label>",
    "name": "<label>{label}<input name='username' autocomplete='username' required></label>",
    "password": "<label>{label}<input name='password' type='password' required></label>",
}


def _is_browser(request: Request) -> bool:
    return "text/html" in request.headers.get("accept", "")
