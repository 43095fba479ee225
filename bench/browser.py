"""A page without a screen: sends what Gradio's own frontend sends, in its order, and times what comes back.

Reads all it knows off `/config`, so one code drives the playground and a ChatInterface: an event runs its dependency,
whose end triggers those that follow it, each fed with the values that the components have by then. Queued ones join
the queue and are read from the session's stream; the others are plain posts.
"""

from __future__ import annotations

import http.client
import json
import secrets
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

API = "/gradio_api"
KEPT_ALIVE_SECONDS = 3.0  # the server closes a connection after five without a request
KEPT_ELSEWHERE = ("state", "browserstate")  # the server's own, or the browser's store: null in a fresh page


@dataclass(slots=True)
class Answered:
    """Seconds from just before the first post: to the first token, and to the end. `final`: the streamed outputs."""

    first_s: float | None = None
    done_s: float = 0.0
    messages: int = 0
    final: Any = None


class Site:
    """One Gradio server and its configuration."""

    def __init__(self, url: str) -> None:
        self.address = urlsplit(url).netloc
        self.config = json.loads(self.get("/config"))
        self.components = {component["id"]: component for component in self.config["components"]}

    def get(self, path: str) -> bytes:
        return self._got(path)[0]

    def seat(self) -> str:
        """The cookie of a new visitor; a ChatInterface gives none."""
        return (self._got("/")[1]["Set-Cookie"] or "").partition(";")[0]

    def _got(self, path: str) -> tuple[bytes, http.client.HTTPMessage]:
        with closing(http.client.HTTPConnection(self.address, timeout=60)) as connection:
            connection.request("GET", path)
            response = connection.getresponse()
            return _body(response), response.headers

    def composer(self) -> int:
        """The box that questions are typed into: the playground's chat tab's, or a ChatInterface's only one."""
        boxes = {target for d in self.config["dependencies"] for target, event in d["targets"] if event == "submit"}
        named = [box for box in boxes if self.components[box]["props"].get("elem_id") == "composer-chat"]
        return int(named[0] if named else min(boxes))

    def triggered(self, target: int | None, event: str) -> list[dict[str, Any]]:
        return [d for d in self.config["dependencies"] if [target, event] in [list(t) for t in d["targets"]]]

    def following(self, dependency: dict[str, Any]) -> list[dict[str, Any]]:
        return [d for d in self.config["dependencies"] if d["trigger_after"] == dependency["id"]]

    def input_labelled(self, dependency: dict[str, Any], label: str) -> int:
        """The id of the input whose label has this key; raises StopIteration where there is none."""
        return next(
            int(i) for i in dependency["inputs"] if f'"{label}"' in str(self.components[i]["props"].get("label"))
        )


class Page:
    """One visitor who has opened the page."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.session = secrets.token_hex(5)
        self.headers = {"Content-Type": "application/json", "Cookie": site.seat()}
        self.values = {
            i: None if component["type"] in KEPT_ELSEWHERE else component["props"].get("value")
            for i, component in site.components.items()
        }
        self._idle: list[tuple[http.client.HTTPConnection, float]] = []
        self._load()

    def _load(self) -> None:
        """What a browser runs once when the page opens; a ChatInterface has nothing there."""
        for dependency in self.site.config["dependencies"]:
            if any(event == "load" for _, event in dependency["targets"]) and not dependency["queue"]:
                self._run(dependency, Answered(), 0.0, "")

    def ask(self, text: str, first: str) -> Answered:
        """Types `text` and sends it; waits for everything that this sets off. `first` marks the first token."""
        box = self.site.composer()
        self.values[box] = text
        answered, started = Answered(), time.perf_counter()
        for dependency in self.site.triggered(box, "submit"):
            self._chain(dependency, answered, started, first)
        if answered.first_s is None:
            raise RuntimeError(f"no first token came to {text!r}: {str(answered.final)[:500]}")
        return answered

    def _chain(self, dependency: dict[str, Any], answered: Answered, started: float, first: str) -> None:
        self._run(dependency, answered, started, first)
        follow = self.site.following(dependency)
        # A browser runs what follows at the same time; the first is the long way, the others are single posts.
        aside = [threading.Thread(target=self._run, args=(d, Answered(), started, first)) for d in follow[1:]]
        for thread in aside:
            thread.start()
        if follow:
            self._chain(follow[0], answered, started, first)
        for thread in aside:
            thread.join()

    def _run(self, dependency: dict[str, Any], answered: Answered, started: float, first: str) -> None:
        if not dependency["backend_fn"]:
            return
        body = {
            "data": [self.values[i] for i in dependency["inputs"]],
            "event_data": None,
            "fn_index": dependency["id"],
            "trigger_id": self.site.composer(),
            "session_hash": self.session,
        }
        if dependency["queue"]:
            self._post(f"{API}/queue/join", body)
            outputs = self._follow(answered, started, first)
        else:
            outputs = self._post(f"{API}/run/predict", body)["data"]
        for i, output in zip(dependency["outputs"], outputs, strict=False):
            if isinstance(output, dict) and output.get("__type__") == "update":
                self.values[i] = output.get("value", self.values[i])
            elif self.site.components[i]["type"] != "state":
                self.values[i] = output

    def _follow(self, answered: Answered, started: float, first: str) -> list[Any]:
        """Reads the session's stream to the end of its one event; returns the outputs."""
        connection = http.client.HTTPConnection(self.site.address, timeout=300)
        connection.request("GET", f"{API}/queue/data?session_hash={self.session}", headers=self.headers)
        mark, outputs = first.encode(), []
        for line in events(connection.getresponse()):
            if answered.first_s is None and mark in line:
                answered.first_s = time.perf_counter() - started
            answered.messages += 1
            if b'"process_completed"' in line:
                message = json.loads(line)
                if not message["success"]:
                    raise RuntimeError(f"the server failed: {message['output']}")
                outputs = message["output"]["data"]
                if answered.first_s is not None and answered.final is None:
                    answered.done_s, answered.final = time.perf_counter() - started, outputs
        connection.close()
        return outputs

    def close(self) -> None:
        for connection, _ in self._idle:
            connection.close()

    def _post(self, path: str, body: dict[str, Any]) -> Any:
        connection, used = self._idle.pop() if self._idle else (None, 0.0)
        if connection is not None and time.monotonic() - used > KEPT_ALIVE_SECONDS:
            connection.close()
            connection = None
        if connection is None:
            connection = http.client.HTTPConnection(self.site.address, timeout=300)
        connection.request("POST", path, json.dumps(body), self.headers)
        reply = json.loads(_body(connection.getresponse()))
        self._idle.append((connection, time.monotonic()))
        return reply


def ask_endpoint(site: Site, text: str, first: str) -> float:
    """Seconds to the first token through the named endpoint /chat, as its documentation says to call it."""
    started, seen = time.perf_counter(), None
    connection = http.client.HTTPConnection(site.address, timeout=300)
    connection.request(
        "POST", f"{API}/call/v2/chat", json.dumps({"message": text}), {"Content-Type": "application/json"}
    )
    event = json.loads(_body(connection.getresponse()))["event_id"]
    connection.request("GET", f"{API}/call/v2/chat/{event}")
    for line in events(connection.getresponse()):
        if seen is None and first.encode() in line:
            seen = time.perf_counter() - started
    connection.close()
    if seen is None:
        raise RuntimeError(f"the endpoint gave no first token to {text!r}")
    return seen


def events(response: http.client.HTTPResponse) -> Iterator[bytes]:
    """The data of a server-sent stream, one event after the other."""
    if response.status != 200:
        raise RuntimeError(f"{response.status}: {response.read()[:500]!r}")
    for line in response:
        if line.startswith(b"data: "):
            yield line[6:]


def _body(response: http.client.HTTPResponse) -> bytes:
    body = response.read()
    if response.status != 200:
        raise RuntimeError(f"{response.status}: {body[:500]!r}")
    return body
