"""One file of weights over HTTP, from the Hugging Face hub or from ModelScope: resumed, and given up at any moment.

Knows nothing of checksums beyond what a server claims, nor of what comes after a failure. A server's word on lengths
is taken as a hint only: the caller's checksum decides.
"""

from __future__ import annotations

import os
import queue
import re
import threading
from collections.abc import Generator, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Self
from urllib.parse import quote

import httpx
from huggingface_hub import hf_hub_url
from huggingface_hub.utils import build_hf_headers  # type: ignore[attr-defined]  # public, but not marked so

from backends.core.cancel import Cancel
from backends.core.errors import SourceUnreachable, WeightsError
from backends.core.types import Loading
from backends.weights.files import Cancelled, Meter, PartialFile

TIMEOUT = httpx.Timeout(20.0, connect=10.0)
TRIES = 4  # in a row without one new byte
CANCEL_POLL_S = 0.2
PROBE_S = 3.0
MOST_TEXT = 16 << 20
HUB = "the model hub"


def hub_endpoint() -> str:
    """Read at run time: huggingface_hub reads HF_ENDPOINT once, when it is imported."""
    return (os.environ.get("HF_ENDPOINT") or "https://huggingface.co").rstrip("/")


def hub_answers() -> bool:
    """Whether the hub answers within three seconds, looking up its name included."""
    answers = threading.Event()

    def knock() -> None:
        with suppress(Exception):  # whatever is wrong: it did not answer
            if httpx.head(hub_endpoint() + "/", timeout=PROBE_S).status_code < 500:
                answers.set()

    thread = threading.Thread(target=knock, name="hub-probe", daemon=True)  # a name lookup has no timeout of its own
    thread.start()
    thread.join(PROBE_S)
    return answers.is_set()


@dataclass(frozen=True, slots=True)
class Address:
    """Where one file lies. `keeper` is the server's name in sentences, `repo` its page; headers may hold a token."""

    file: str
    url: str
    headers: dict[str, str]
    keeper: str
    repo: str

    @classmethod
    def on_hub(cls, repo: str, file: str, revision: str) -> Address:
        return cls(file, hf_hub_url(repo, file, revision=revision, endpoint=hub_endpoint()), _hub_headers(), HUB, repo)

    @classmethod
    def of_listing(cls, repo: str) -> Address:
        """Where the hub lists the files of a whole repository, with sizes and checksums, as JSON."""
        return cls(repo, f"{hub_endpoint()}/api/models/{quote(repo)}?blobs=true", _hub_headers(), HUB, repo)

    @classmethod
    def on_modelscope(cls, repo: str, file: str, endpoint: str) -> Address:
        return cls(file, f"{endpoint}/models/{quote(repo)}/resolve/master/{quote(file)}", {}, "ModelScope", repo)

    def refusal(self, status: int) -> WeightsError:
        """The error for an answer without the file; `SourceUnreachable` is worth another try."""
        keeper = self.keeper[0].upper() + self.keeper[1:]
        signed_in = any(name.lower() == "authorization" for name in self.headers)
        if status in (401, 403) and self.keeper == HUB:
            if not signed_in:
                return WeightsError(
                    f"The model hub gives {self.file} only to people who are signed in.",
                    f"Accept the licence on the model page of {self.repo}, then set HF_TOKEN to an access token.",
                )
            if status == 401:
                return WeightsError(
                    f"The model hub does not accept the access token for {self.file}.",
                    "Make a new access token in the hub's settings and set HF_TOKEN to it.",
                )
            return WeightsError(
                f"The model hub has not yet opened {self.file} to this account.",
                f"Accept the licence on the model page of {self.repo} with the account that HF_TOKEN belongs to.",
            )
        if status in (408, 429) or status >= 500:
            return SourceUnreachable(f"{keeper} cannot give {self.file} at the moment.", "Try again in a few minutes.")
        if status == 404:
            return WeightsError(f"{keeper} does not have {self.file}.")
        return WeightsError(f"{keeper} does not give out {self.file}.")


def _hub_headers() -> dict[str, str]:
    """With the person's token where there is one. httpx drops it when a redirect leads to another host."""
    headers: dict[str, str] = build_hf_headers(library_name="qwen-playground")
    return headers


@dataclass(frozen=True, slots=True)
class Head:
    """What a server claims. `start`: offset of its first byte; `total`: bytes of the whole file, 0 if untold.

    `sha256` comes from the hub's own host, which names it even where a redirect leads to the bytes.
    """

    status: int
    start: int
    total: int
    sha256: str | None

    @classmethod
    def of(cls, response: httpx.Response) -> Head:
        start, total = 0, _number(response.headers.get("Content-Length"))
        if response.status_code == 206:
            start, total = -1, 0
            if match := re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", response.headers.get("Content-Range", "")):
                start, total = int(match[1]), _number(match[2])
        etags = (step.headers.get("X-Linked-Etag", "").strip('"') for step in (*response.history, response))
        sha256 = next((etag for etag in etags if re.fullmatch("[0-9a-f]{64}", etag)), None)
        return cls(response.status_code, start, total, sha256)


def _number(text: str | None) -> int:
    return int(text) if text and text.isascii() and text.isdigit() else 0


class Connection:
    """One GET, read by a thread of its own, so that whoever waits can give up even during a name lookup.

    The thread owns the socket and touches no file. Once abandoned it ends at its next byte or timeout.
    """

    def __init__(self, address: Address, start: int = 0) -> None:
        self._address = address
        self._headers = {**address.headers, "Accept-Encoding": "identity"}
        if start:
            self._headers["Range"] = f"bytes={start}-"
        self._items: queue.Queue[Head | bytes | Exception] = queue.Queue(maxsize=8)
        self._closed = threading.Event()

    def __enter__(self) -> Self:
        threading.Thread(target=self._read, name="weights-download", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closed.set()
        with suppress(queue.Empty):
            self._items.get_nowait()  # wakes a reader that waits for a place in the queue

    def head(self, cancel: Cancel) -> Head:
        """Raises `Cancelled`, `SourceUnreachable`."""
        head = self._take(cancel)
        assert isinstance(head, Head)
        return head

    def body(self, cancel: Cancel) -> Iterator[bytes]:
        """Raises `Cancelled`, and `SourceUnreachable` where the server stops before the end that it promised."""
        while data := self._take(cancel):
            assert isinstance(data, bytes)
            yield data

    def _take(self, cancel: Cancel) -> Head | bytes:
        while not cancel.is_set():
            try:
                item = self._items.get(timeout=CANCEL_POLL_S)
            except queue.Empty:
                continue
            if isinstance(item, Exception):
                sentence = f"The connection to {self._address.keeper} broke while fetching {self._address.file}."
                raise SourceUnreachable(sentence, "Send again: it goes on where it stopped.") from item
            return item
        raise Cancelled

    def _read(self) -> None:
        end: bytes | Exception = b""
        try:
            with httpx.stream(
                "GET", self._address.url, headers=self._headers, follow_redirects=True, timeout=TIMEOUT
            ) as response:
                self._items.put(Head.of(response))
                if response.is_success:
                    for data in response.iter_raw():
                        if self._closed.is_set():
                            return
                        self._items.put(data)
        except Exception as exc:  # travels to the thread that waits, and is translated there
            end = exc
        if not self._closed.is_set():
            self._items.put(end)


def claimed(address: Address, cancel: Cancel) -> Head:
    """What the server says of the file, without fetching it. Raises `Cancelled`, `WeightsError`."""
    with Connection(address) as connection:
        head = connection.head(cancel)
    if head.status != 200:
        raise address.refusal(head.status)
    return head


def text(address: Address, cancel: Cancel) -> bytes:
    """A short answer as a whole. Raises `Cancelled`, `WeightsError`."""
    data = bytearray()
    with Connection(address) as connection:
        head = connection.head(cancel)
        if head.status != 200:
            raise address.refusal(head.status)
        for piece in connection.body(cancel):
            data += piece
            if len(data) > MOST_TEXT:
                raise WeightsError(f"What {address.keeper} says of {address.repo} has no end.")
    return bytes(data)


def download(
    address: Address, part: PartialFile, size: int | None, cancel: Cancel, retry_wait_s: float
) -> Iterator[Loading]:
    """Appends what is missing, and resumes after a break for as long as new bytes come.

    `size`: exact bytes of the whole, None where nobody told. Raises `Cancelled`, `NotEnoughDisk`, `WeightsError`.
    """
    furthest, tries = part.size, 0
    while size is None or part.size < size:
        broken: SourceUnreachable | None = None
        try:
            ended = yield from _once(address, part, size, cancel)
        except SourceUnreachable as exc:
            ended, broken = False, exc
        if ended:
            return
        tries = 0 if part.size > furthest else tries + 1
        furthest = max(part.size, furthest)
        if tries >= TRIES:
            raise broken or SourceUnreachable(f"Only a part of {part.name} could be fetched from {address.keeper}.")
        if cancel.wait(retry_wait_s * tries):
            raise Cancelled


def _once(address: Address, part: PartialFile, size: int | None, cancel: Cancel) -> Generator[Loading, None, bool]:
    """One request. Returns whether the server has nothing more to give."""
    with Connection(address, part.size) as connection:
        head = connection.head(cancel)
        if head.status == 416:  # nothing beyond what is here already
            return True
        if head.status not in (200, 206):
            raise address.refusal(head.status)
        if head.start != part.size:  # the server ignores ranges, or answers with another one
            part.cut(0)
        if head.start != part.size:
            return False
        total = size or head.total
        part.require_room(total)
        meter = Meter("fetching", total, part.size)
        yield from meter.tick(part.size, f"from {address.keeper}")
        for data in connection.body(cancel):
            part.append(data)
            yield from meter.tick(part.size, f"from {address.keeper}")
            if size is not None and part.size > size:  # more than the file can be: the checksum will say so
                break
    return size is None or part.size >= size
