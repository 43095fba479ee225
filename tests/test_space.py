"""The manifest of the Hugging Face Space: README.md carries it, and it agrees with the rest of the project."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from backends.catalog.cards import Catalog
from tools import space

COLOURS = {"red", "yellow", "green", "blue", "indigo", "purple", "pink", "gray"}  # all that a Space knows

MANIFEST = (space.ROOT / "Spacefile").read_text("utf-8")
FIELDS = space.fields(MANIFEST)


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A project of the files that the tool looks at, to be changed at will."""
    for name in ("Spacefile", "README.md", "requirements.txt", "app.py"):
        shutil.copy(space.ROOT / name, tmp_path / name)
    return tmp_path


def edit(file: Path, old: str, new: str) -> None:
    text = file.read_text("utf-8")
    assert old in text
    file.write_text(text.replace(old, new), "utf-8")


def test_the_readme_begins_with_the_spacefile() -> None:
    assert (space.ROOT / "README.md").read_text("utf-8").startswith(f"---\n{MANIFEST.strip()}\n---\n\n")


def test_the_sdk_version_is_the_gradio_that_is_pinned() -> None:
    assert FIELDS["sdk_version"] == space.pinned((space.ROOT / "requirements.txt").read_text("utf-8"), "gradio")


def test_the_app_file_exists() -> None:
    assert (space.ROOT / FIELDS["app_file"]).is_file()


def test_colours_and_description_are_what_a_space_takes() -> None:
    assert {FIELDS["colorFrom"], FIELDS["colorTo"]} <= COLOURS
    assert len(FIELDS["short_description"]) <= 60
    assert FIELDS["sdk"] == "gradio"


def test_what_a_space_fetches_beforehand_is_the_file_of_the_first_model() -> None:
    artefact = Catalog.read().cards[0].artefact("llama_cpp")
    assert artefact is not None
    assert f"preload_from_hub:\n  - {artefact.hub} {artefact.file}\n" in MANIFEST


def test_the_check_finds_nothing_to_say() -> None:
    assert space.main(["--check"]) == 0


def test_a_changed_spacefile_is_found_and_then_written(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    edit(copy / "Spacefile", "colorTo: indigo", "colorTo: blue")
    before = (copy / "README.md").read_text("utf-8")
    assert space.main(["--check"], root=copy) == 1
    assert "make space" in capsys.readouterr().err
    assert (copy / "README.md").read_text("utf-8") == before

    assert space.main([], root=copy) == 0
    after = (copy / "README.md").read_text("utf-8")
    assert "colorTo: blue" in after
    assert space.body(after) == space.body(before)
    assert space.main(["--check"], root=copy) == 0


def test_a_readme_without_front_matter_gets_one_and_keeps_its_text(copy: Path) -> None:
    (copy / "README.md").write_text("# Title\n\n---\n\nText\n", "utf-8")
    assert space.main([], root=copy) == 0
    assert space.body((copy / "README.md").read_text("utf-8")) == "# Title\n\n---\n\nText\n"


@pytest.mark.parametrize(
    ("old", "new"),
    [(f"sdk_version: {FIELDS['sdk_version']}", "sdk_version: 5.0.0"), ("app_file: app.py", "app_file: none.py")],
)
def test_a_manifest_that_disagrees_is_refused_and_nothing_is_written(copy: Path, old: str, new: str) -> None:
    edit(copy / "Spacefile", old, new)
    before = (copy / "README.md").read_text("utf-8")
    assert space.main([], root=copy) == 1
    assert (copy / "README.md").read_text("utf-8") == before
