"""Whole repositories: what is brought of them, at which revision, and what is refused. Loopback only."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import constants

from backends.catalog.cards import Repository
from backends.core.cancel import Cancel
from backends.core.errors import DamagedFile, NotEnoughDisk, SourceUnreachable, WeightsError
from backends.weights import downloads as weight_downloads
from backends.weights.files import hashed
from backends.weights.store import Cancelled, WeightStore
from tests.patience import FOREVER_S, PATIENCE_S, ended, eventually
from tests.weight_servers import CONTENT, Handler, Origin, answers, damage, drain, honest, sha256
from tests.weight_servers import hub as hub
from tests.weight_servers import nobody_elses_settings as nobody_elses_settings
from tests.weight_servers import origins as origins
from tests.weight_servers import store as store

WANTED = Repository(engine="hf_transformers", hub="Qwen/Toy")
FIRST, SECOND = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"
INDEX = "model.safetensors.index.json"
FILES = {
    "config.json": b'{"model_type": "toy"}',
    "tokenizer_config.json": b"{}",
    "tokenizer.json": b'{"a": 1}' * 1_000,
    "merges.txt": b"a b",
    "chat_template.jinja": b"{{ messages }}",
    INDEX: json.dumps({"weight_map": {"a": FIRST, "b": SECOND}}).encode(),
    FIRST: CONTENT,
    SECOND: CONTENT[::-1],
}
TOTAL = sum(map(len, FILES.values()))
IN_LFS = ("tokenizer.json", FIRST, SECOND)


def git_blob(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


class Toy:
    """The repository on the hub. `faults` answer the next requests for a file in turn."""

    def __init__(self, origin: Origin) -> None:
        self.files = dict(FILES)
        self.revision = "1" * 40
        self.faults: dict[str, list[Callable[[Handler], None]]] = {}
        self.origin = origin
        origin.always = self._answer

    @property
    def given(self) -> list[str]:
        return [path.rpartition("/")[2] for path, _ in self.origin.requests if "/resolve/" in path]

    def listing(self) -> dict[str, Any]:
        return {"sha": self.revision, "siblings": [self._row(*item) for item in self.files.items()]}

    def _row(self, name: str, content: bytes) -> dict[str, Any]:
        row = {"rfilename": name, "size": len(content), "blobId": git_blob(content)}
        lfs = {"sha256": sha256(content), "size": len(content), "pointerSize": 134}
        return {**row, "blobId": git_blob(b"pointer"), "lfs": lfs} if name in IN_LFS else row

    def _answer(self, handler: Handler) -> None:
        name = handler.path.removeprefix(f"/{WANTED.hub}/resolve/{self.revision}/")
        if faults := self.faults.get(name):
            faults.pop(0)(handler)
        elif handler.path == f"/api/models/{WANTED.hub}?blobs=true":
            handler.reply(200, json.dumps(self.listing()).encode())
        elif name in self.files:
            honest(handler, self.files[name])
        else:
            handler.reply(404, b"no")


@pytest.fixture
def toy(hub: Origin) -> Toy:
    return Toy(hub)


def fetched(store: WeightStore, cancel: Cancel | None = None) -> Path:
    return drain(store.fetch_repository(WANTED, cancel or Cancel()))[1]


def held(folder: Path) -> dict[str, bytes]:
    """What stands in the folder, less the store's own notes."""
    notes = re.compile(r"\..*|.*\.(part|lock|(json|safetensors|txt|jinja)(\.part)?\.json)|.*\.damaged-.*")
    return {path.name: path.read_bytes() for path in folder.iterdir() if not notes.fullmatch(path.name)}


# --- the whole -----------------------------------------------------------------------------------


def test_all_that_is_needed_comes_into_one_folder_at_one_revision(toy: Toy, store: WeightStore) -> None:
    assert not store.have_repository(WANTED)
    folder = fetched(store)
    assert held(folder) == FILES
    assert store.have_repository(WANTED)
    assert store.obtainable(WANTED.config)
    assert toy.given[-2:] == [FIRST, SECOND], "the weights come last"
    assert sorted(toy.given) == sorted(FILES)


def test_what_is_here_is_neither_asked_for_nor_hashed_again(toy: Toy, store: WeightStore, tmp_path: Path) -> None:
    folder, asked = fetched(store), len(toy.origin.requests)
    offline = WeightStore(tmp_path / "root", offline=True)
    assert offline.have_repository(WANTED)
    assert offline.obtainable(WANTED.config)
    for later in (store, offline):
        assert drain(later.fetch_repository(WANTED, Cancel())) == ([], folder)
    assert len(toy.origin.requests) == asked


def test_progress_counts_all_files_and_never_runs_backwards(
    toy: Toy, store: WeightStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("backends.weights.files.EVENT_EVERY_S", 0)
    toy.faults[FIRST] = [lambda h: honest(h, CONTENT, stop=90_000), lambda h: h.reply(200, CONTENT)]  # begins anew
    events, _ = drain(store.fetch_repository(WANTED, Cancel()))
    for stage in ("fetching", "checking"):
        done = [event.done for event in events if event.stage == stage]
        assert done == sorted(done)
        assert done[-1] == TOTAL
    assert {event.total for event in events} == {TOTAL}
    assert any(event.seconds_left for event in events)


def test_a_git_blob_is_named_as_git_names_it(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"hello\n")
    _, name = drain(hashed(tmp_path / "file", Cancel(), git_blob=True))
    assert name == "ce013625030ba8dba906f756967f9e9ca394464a"


NEVER = [
    "modeling_toy.py", "pytorch_model.bin", "model.pt", "model.pth", "toy.gguf", "model.onnx", "flax_model.msgpack",
    "logo.png", "README.md", "LICENSE", ".gitattributes", ".listing.json", "onnx/model.safetensors", "a/config.json",
    "../x", "../x.json", "/tmp/x.json", "..", "x\\y.json", "C:x.json", "x.json\n", "x.jso\u0274",
    "config.json.json", f"{FIRST}.json", f"{FIRST}.part.json", "", "empty.json",
]  # fmt: skip


def test_nothing_else_is_ever_asked_for(toy: Toy, store: WeightStore, tmp_path: Path) -> None:
    toy.files |= {name: b"" if name == "empty.json" else b"evil" for name in NEVER}
    assert held(fetched(store)) == FILES
    assert sorted(toy.given) == sorted(FILES)
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and b"evil" in path.read_bytes()]


# --- what goes wrong on the way ------------------------------------------------------------------


def test_a_server_that_dies_half_way_is_resumed_later(toy: Toy, store: WeightStore) -> None:
    toy.faults[SECOND] = [lambda h: honest(h, FILES[SECOND], stop=70_000)] * 5
    with pytest.raises(SourceUnreachable, match="broke"):
        fetched(store)
    assert not store.have_repository(WANTED)
    toy.origin.requests.clear()
    assert held(fetched(store)) == FILES
    assert toy.given == [SECOND]
    assert toy.origin.requests[-1][1]["range"] == "bytes=70000-"


@pytest.mark.parametrize("name", ["config.json", FIRST])
def test_wrong_bytes_are_set_aside_named_and_fetched_anew(toy: Toy, store: WeightStore, name: str) -> None:
    toy.faults[name] = [lambda h: honest(h, bytes(len(FILES[name])))]
    with pytest.raises(DamagedFile, match=re.escape(name)):
        fetched(store)
    folder = store.path(WANTED.config).parent
    assert name not in held(folder)
    assert [path.name.partition(".damaged-")[0] for path in folder.glob("*.damaged-*")] == [name]
    assert held(fetched(store)) == FILES


@pytest.mark.parametrize("names", [["config.json"], [FIRST, "tokenizer.json"], [SECOND], []])
def test_files_that_were_damaged_after_their_check_are_found_and_brought_anew_alone(
    toy: Toy, store: WeightStore, names: list[str]
) -> None:
    folder = fetched(store)
    for name in names:
        damage(folder / name)
    assert store.have_repository(WANTED), "nothing has told it so far"
    with pytest.raises(DamagedFile) if names else nullcontext() as caught:
        drain(store.check_again(WANTED, Cancel()))
    if caught is not None:
        assert any(name in caught.value.message for name in names)
    assert sorted(path.name.partition(".damaged-")[0] for path in folder.glob("*.damaged-*")) == sorted(names)
    assert store.have_repository(WANTED) == (not names)
    toy.origin.requests.clear()
    assert held(fetched(store)) == FILES
    assert sorted(toy.given) == sorted(names)


def test_a_push_between_two_attempts_leaves_one_revision(toy: Toy, store: WeightStore) -> None:
    toy.faults[SECOND] = [answers(404)]
    with pytest.raises(WeightsError):
        fetched(store)
    toy.revision = "2" * 40
    toy.files = {**FILES, "config.json": b'{"model_type": "new"}', "model.safetensors": CONTENT[:9]}
    del toy.files[INDEX], toy.files[FIRST], toy.files[SECOND], toy.files["merges.txt"]
    toy.origin.requests.clear()
    assert held(fetched(store)) == toy.files
    assert sorted(toy.given) == ["config.json", "model.safetensors"]


def test_a_repository_once_complete_stays_at_its_revision(toy: Toy, store: WeightStore) -> None:
    folder = fetched(store)
    os.utime(folder / FIRST, ns=(1, 1))
    (folder / "merges.txt").unlink()
    assert not store.have_repository(WANTED)
    toy.origin.requests.clear()
    assert held(fetched(store)) == FILES
    assert [path for path, _ in toy.origin.requests] == [f"/{WANTED.hub}/resolve/{toy.revision}/merges.txt"]


def test_cancel_ends_it_though_the_server_hangs_and_keeps_what_is_here(
    toy: Toy, store: WeightStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(weight_downloads, "TIMEOUT", FOREVER_S)  # nothing but the cancel ends it
    released, cancel = threading.Event(), Cancel()
    part = store.path(WANTED.config).with_name(f"{FIRST}.part")

    def stall(handler: Handler) -> None:
        handler.reply(200, CONTENT[:80_000], len(CONTENT))
        released.wait(FOREVER_S)

    def give_up() -> None:
        eventually(lambda: FIRST in toy.given and part.exists())
        cancel()

    toy.faults[FIRST] = [stall]
    threading.Thread(target=give_up, daemon=True).start()
    with pytest.raises(Cancelled):
        ended(lambda: fetched(store, cancel))
    released.set()
    toy.origin.requests.clear()
    assert held(fetched(store)) == FILES
    assert toy.given == [FIRST, SECOND]


def test_a_disk_too_small_for_the_whole_is_told_before_the_first_byte(toy: Toy, tmp_path: Path) -> None:
    store = WeightStore(tmp_path, free=lambda folder: len(CONTENT) + 50_000)
    with pytest.raises(NotEnoughDisk, match=r"Qwen/Toy needs 408 kB more .* 250 kB are free"):
        fetched(store)
    assert toy.given == []


def test_two_who_want_it_fetch_it_once(toy: Toy, store: WeightStore, tmp_path: Path) -> None:
    asked, released = threading.Event(), threading.Event()

    def slow(handler: Handler) -> None:
        asked.set()
        released.wait(FOREVER_S)
        honest(handler, CONTENT)

    toy.faults[FIRST] = [slow]
    first = threading.Thread(target=lambda: fetched(store))
    first.start()
    assert asked.wait(PATIENCE_S)
    second = WeightStore(tmp_path / "root").fetch_repository(WANTED, Cancel())
    assert "waiting for another" in next(second).detail
    released.set()
    assert held(drain(second)[1]) == FILES
    first.join()
    assert sorted(toy.given) == sorted(FILES)


def test_two_processes_do_not_collide(toy: Toy, store: WeightStore, tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from backends.core.cancel import Cancel; "
        "from backends.catalog.cards import Repository; from backends.weights.store import WeightStore; "
        f"store = WeightStore(Path({str(tmp_path / 'root')!r})); wanted = Repository(engine='x', hub={WANTED.hub!r}); "
        "list(store.fetch_repository(wanted, Cancel())); sys.exit(not store.have_repository(wanted))"
    )
    root = Path(__file__).resolve().parents[3]
    others = [subprocess.Popen([sys.executable, "-c", code], cwd=root) for _ in range(2)]
    assert held(fetched(store)) == FILES
    assert [other.wait(PATIENCE_S) for other in others] == [0, 0]
    assert sorted(toy.given) == sorted(FILES)


# --- what is refused -----------------------------------------------------------------------------


def test_an_unreachable_hub_is_one_sentence(store: WeightStore) -> None:
    assert not store.obtainable(WANTED.config)
    with pytest.raises(SourceUnreachable, match=r"Qwen/Toy is not on this machine, and the model hub cannot be"):
        fetched(store)


def test_offline_asks_nobody(toy: Toy, tmp_path: Path) -> None:
    store = WeightStore(tmp_path, offline=True)
    assert not store.obtainable(WANTED.config)
    with pytest.raises(SourceUnreachable):
        fetched(store)
    assert (toy.origin.probes, toy.origin.requests) == (0, [])


@pytest.mark.parametrize(("status", "token"), [(401, False), (401, True), (403, True)])
@pytest.mark.parametrize("at", ["the listing", "a file"])
def test_a_gated_repository_says_the_missing_step(
    toy: Toy, store: WeightStore, monkeypatch: pytest.MonkeyPatch, status: int, token: bool, at: str
) -> None:
    if token:
        monkeypatch.setenv("HF_TOKEN", "hf_thisisasecret")
    if at == "the listing":
        toy.origin.scripts = [answers(status)]
    else:
        toy.faults["config.json"] = [answers(status)]
    with pytest.raises(WeightsError, match="model hub") as caught:
        fetched(store)
    assert "HF_TOKEN" in caught.value.hint
    assert "secret" not in caught.value.message + caught.value.hint
    assert ("authorization" in toy.origin.requests[0][1]) == token


def test_a_repository_without_safetensors_is_refused(toy: Toy, store: WeightStore) -> None:
    toy.files = {"config.json": b"{}", "pytorch_model.bin": CONTENT}
    with pytest.raises(WeightsError, match="safetensors"):
        fetched(store)
    assert toy.given == []


@pytest.mark.parametrize(
    "index",
    [b"no json", b"[]", b'{"weight_map": {"a": "model-3.safetensors"}}', b'{"weight_map": {"a": "../x.safetensors"}}'],
)
def test_an_index_that_names_what_is_not_there_is_refused(toy: Toy, store: WeightStore, index: bytes) -> None:
    toy.files |= {INDEX: index, "../x.safetensors": CONTENT}
    with pytest.raises(WeightsError, match="index"):
        fetched(store)
    assert FIRST not in toy.given, "it is found out before the weights are fetched"
    assert not store.have_repository(WANTED)


@pytest.mark.parametrize("fault", ["no json", "revision", "size", "checksum", "endless"])
def test_a_listing_that_makes_no_sense_is_refused(
    toy: Toy, store: WeightStore, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    listing = toy.listing()
    if fault == "revision":
        listing["sha"] = "../../main"
    elif fault == "size":
        listing["siblings"][0]["size"] = -5
    elif fault == "checksum":
        listing["siblings"][0]["blobId"] = "0" * 39
    elif fault == "endless":
        monkeypatch.setattr("backends.weights.downloads.MOST_TEXT", 100)
    body = b"<html>sign in</html>" if fault == "no json" else json.dumps(listing).encode()
    toy.origin.scripts = [lambda handler: handler.reply(200, body)]
    with pytest.raises(WeightsError, match=r"What the model hub says of Qwen/Toy"):
        fetched(store)
    assert toy.given == []


# --- the hub's own cache -------------------------------------------------------------------------


def fill_cache(files: dict[str, bytes]) -> Path:
    """As huggingface_hub fills it; returns the folder of blobs."""
    repo = Path(constants.HF_HUB_CACHE) / "models--Qwen--Toy"
    blobs, snapshot, ref = repo / "blobs", repo / "snapshots" / ("1" * 40), repo / "refs" / "main"
    for folder in (blobs, snapshot, ref.parent):
        folder.mkdir(parents=True)
    ref.write_text(snapshot.name)
    for name, content in files.items():
        blob = blobs / (sha256(content) if name in IN_LFS else git_blob(content))
        blob.write_bytes(content)
        (snapshot / name).symlink_to(blob)
    return blobs


def test_the_hubs_own_cache_serves_without_a_network_and_without_a_copy(store: WeightStore) -> None:
    blobs = fill_cache({**FILES, "README.md": b"read me"})
    assert store.obtainable(WANTED.config)
    folder = fetched(store)
    assert held(folder) == FILES
    assert {(folder / name).resolve().parent for name in FILES} == {blobs}
    assert store.have_repository(WANTED)


@pytest.mark.parametrize("missing", ["config.json", "tokenizer_config.json", SECOND])
def test_half_a_repository_in_the_cache_is_none(store: WeightStore, missing: str) -> None:
    fill_cache({name: content for name, content in FILES.items() if name != missing})
    assert not store.obtainable(WANTED.config)
    with pytest.raises(SourceUnreachable):
        fetched(store)


def test_a_rotten_blob_is_not_used(store: WeightStore) -> None:
    blob = fill_cache(FILES) / git_blob(FILES["config.json"])
    blob.write_bytes(b"rotten")
    with pytest.raises(DamagedFile, match=re.escape("config.json")):
        fetched(store)
    assert blob.read_bytes() == b"rotten", "the hub's cache is not ours to tidy"


def test_only_what_has_changed_since_the_cache_was_filled_is_fetched(toy: Toy, tmp_path: Path) -> None:
    fill_cache(FILES)
    toy.revision = "2" * 40
    toy.files["config.json"] = b'{"model_type": "new"}'
    store = WeightStore(tmp_path / "root", free=lambda folder: 1_000)
    folder = fetched(store)
    assert held(folder) == toy.files
    assert toy.given == ["config.json"]
    assert not list(folder.glob("*.damaged-*"))
