"""The one place where a path from outside is opened: it tells nobody what there is on this machine."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from backends.core.errors import InvalidRequest
from backends.pictures.decoder import MAX_BYTES
from ui.visitors.uploads import FORGET_SECONDS, forget_broken_off, uploaded_bytes


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Gradio's folder of uploads, with a secret beside it."""
    root = tmp_path_factory.mktemp("machine")
    (root / "secret.png").write_bytes(b"a secret")
    uploads = root / "uploads"
    (uploads / "abc").mkdir(parents=True)
    (uploads / "abc" / "cat.png").write_bytes(b"a cat")
    (uploads / "link.png").symlink_to(root / "secret.png")
    (uploads / "out").symlink_to(root)
    (uploads / "lost.png").symlink_to(root / "nowhere")
    (uploads / "round.png").symlink_to(uploads / "round.png")
    os.mkfifo(uploads / "pipe.png")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRADIO_TEMP_DIR", str(uploads))
        patch.chdir(root)
        yield uploads


def refusal(file: Any) -> tuple[str, str]:
    with pytest.raises(InvalidRequest) as caught:
        uploaded_bytes(file)
    return caught.value.message, caught.value.hint


SENTENCE = "images must be a list of uploaded pictures, as gradio_client's handle_file makes them."


@pytest.mark.parametrize("wrap", [str, lambda path: {"path": path}, lambda path: {"path": path, "size": -1, "url": 7}])
def test_what_was_uploaded_is_read(folder: Path, wrap: Any) -> None:
    assert uploaded_bytes(wrap(str(folder / "abc" / "cat.png"))) == b"a cat"
    assert uploaded_bytes(wrap(str(folder / "abc" / ".." / "abc" / "cat.png"))) == b"a cat"


# Within the folder where they begin with a slash and are no path of this machine: '{}' stands for it.
PATHS = {
    "a file of the system": "/etc/passwd",
    "a file that is missing": "/etc/no-such-file",
    "one that nobody may read": "/etc/shadow",
    "a device": "/dev/zero",
    "the process itself": "/proc/self/environ",
    "up and out": "{}/../secret.png",
    "up and out to nothing": "{}/../nothing.png",
    "far up": "{}/../../../../../../etc/passwd",
    "up from the working folder": "../../etc/passwd",
    "in the working folder": "secret.png",
    "Windows": "C:\\Windows\\win.ini",
    "Windows with slashes": "C:/Windows/win.ini",
    "a share": "\\\\server\\share\\x.png",
    "a share with slashes": "//server/share/x.png",
    "a link out": "{}/link.png",
    "a linked folder": "{}/out/secret.png",
    "a link to nothing": "{}/lost.png",
    "a link to itself": "{}/round.png",
    "the folder": "{}",
    "a folder in it": "{}/abc",
    "a pipe": "{}/pipe.png",
    "missing in the folder": "{}/abc/dog.png",
    "below a file": "{}/abc/cat.png/x",
    "a null byte": "{}/abc/cat.png\0.txt",
    "only a null byte": "\0",
    "half a character": "{}/\ud83e.png",
    "an endless name": "{}/" + "x" * 5000,
    "nothing": "",
    "a folder that begins alike": "{}-2/x.png",
    "a home": "~/x.png",
    "the metadata of a cloud": "http://169.254.169.254/latest/meta-data/",
    "a page": "https://example.com/cat.png",
    "a file's URL": "file://{}/abc/cat.png",
    "a data URL": "data:image/png;base64,AAAA",
}


@pytest.mark.parametrize("path", PATHS.values(), ids=PATHS)
def test_every_other_path_is_refused_in_the_same_words(folder: Path, path: str) -> None:
    path = path.replace("{}", str(folder))
    for file in (path, {"path": path}, {"path": path, "meta": {"_type": "gradio.FileData"}, "url": path}):
        message, hint = refusal(file)
        assert message == SENTENCE
        assert hint == "Upload them again."


@given(file=st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(), st.lists))
@example({})
@example({"path": None})
@example({"path": 0})
@example({"path": ["/etc/passwd"]})
@example({"path": {"path": "/etc/passwd"}})
@example({"url": "/etc/passwd"})
@example(Path("/etc/passwd"))
@example(0)
def test_whatever_else_comes_is_refused_in_those_words_too(folder: Path, file: Any) -> None:
    assert refusal(file)[0] == SENTENCE


def test_no_more_is_read_than_a_picture_may_have_and_one_byte(folder: Path) -> None:
    large = folder / "large.png"
    with large.open("wb") as file:
        file.truncate(10 * MAX_BYTES)
    assert len(uploaded_bytes(str(large))) == MAX_BYTES + 1


def test_what_was_broken_off_is_forgotten_after_a_while_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
    left = tmp_path / "tmpk2jd83"
    left.write_bytes(b"half a picture")
    (tmp_path / "tmp_of_somebody").mkdir()
    (tmp_path / "abc").mkdir()
    (tmp_path / "abc" / "tmp.png").write_bytes(b"a picture")
    now = left.stat().st_mtime
    assert forget_broken_off(now + FORGET_SECONDS - 1) == 0
    assert forget_broken_off(now + FORGET_SECONDS + 1) == 1
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["abc", "tmp.png", "tmp_of_somebody"]
