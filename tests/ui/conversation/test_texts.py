"""The words of the playground: interface texts in every language, whose language a visitor gets, example data."""

from __future__ import annotations

import json
import tomllib
import unicodedata
from string import Formatter
from types import SimpleNamespace
from typing import Any

import pytest

from backends.pictures.decoder import decode
from ui.conversation import tabs, texts
from ui.screen import labels

LANGUAGE_ROWS = tomllib.loads((tabs.EXAMPLES / "languages.toml").read_text("utf-8"))["language"]
PROMPTS = tomllib.loads((tabs.EXAMPLES / "prompts.toml").read_text("utf-8"))

every_language = pytest.mark.parametrize("code", texts.LANGUAGES)
every_translation = pytest.mark.parametrize("code", [code for code in texts.LANGUAGES if code != "en"])
every_row = pytest.mark.parametrize("row", LANGUAGE_ROWS, ids=lambda row: row["code"])
every_tab = pytest.mark.parametrize("tab", tabs.TABS, ids=lambda tab: tab.id)


def once(pairs: list[tuple[str, str]]) -> dict[str, str]:
    """A JSON object in which no key stands twice; json itself would keep the last one silently."""
    keys = [key for key, _ in pairs]
    assert len(keys) == len(set(keys)), f"twice: {sorted({key for key in keys if keys.count(key) > 1})}"
    return dict(pairs)


def file_of(code: str) -> dict[str, str]:
    """What the file itself says: `texts.dictionaries` would fill its gaps with English."""
    return json.loads((texts.FOLDER / f"{code}.json").read_text("utf-8"), object_pairs_hook=once)


def placeholders(text: str) -> list[str]:
    return sorted(name for _, name, _, _ in Formatter().parse(text) if name is not None)


def visitor(accept: str | None = None, cookie: str | None = None) -> Any:
    cookies = {} if cookie is None else {texts.COOKIE: cookie}
    return SimpleNamespace(cookies=cookies, headers={} if accept is None else {"accept-language": accept})


# The interface in every language


def test_every_language_has_its_file_and_every_file_its_language() -> None:
    assert {path.stem for path in texts.FOLDER.glob("*.json")} == set(texts.LANGUAGES)


@every_translation
def test_a_translation_has_the_keys_of_english_and_no_other(code: str) -> None:
    own, english = set(file_of(code)), set(file_of("en"))
    assert sorted(english - own) == [], "missing"
    assert sorted(own - english) == [], "unknown to English"


@every_translation
def test_a_translation_keeps_placeholders_headings_and_lines(code: str) -> None:
    own = file_of(code)
    for key, english in file_of("en").items():
        assert placeholders(own[key]) == placeholders(english), key
        assert own[key].startswith("## ") == english.startswith("## "), key
        assert own[key].count("\n") == english.count("\n"), key


@every_language
def test_no_text_is_empty_or_padded(code: str) -> None:
    for key, text in file_of(code).items():
        assert text, key
        assert text == text.strip(), key


@every_language
def test_placeholders_have_names_and_can_be_filled(code: str) -> None:
    say = texts.speaker(code)
    for key, text in file_of(code).items():
        names = placeholders(text)
        assert all(name.isidentifier() for name in names), key
        filled = say(key, **{name: f"<{name}>" for name in names})
        assert all(f"<{name}>" in filled for name in names), key


@every_tab
def test_english_names_every_tab_and_its_options(tab: tabs.TabSpec) -> None:
    keys = {f"tab_{tab.id}", f"greeting_{tab.id}"} | {f"{tab.id}_{option.name}" for option in tab.options}
    keys |= {f"{tab.id}_{choice}" for option in tab.options if option.kind == "radio" for choice in option.choices}
    if tab.pictures:  # what a picture without words asks
        keys |= {f"ask_{choice}" for option in tab.options if option.name == "task" for choice in option.choices}
    assert sorted(keys - set(file_of("en"))) == []


def test_a_label_that_english_lacks_is_a_mistake() -> None:
    with pytest.raises(KeyError, match="no_such_label"):
        labels.label("no_such_label")


# Whose language


@pytest.mark.parametrize(
    ("request_", "language"),
    [
        (None, "en"),
        (visitor(), "en"),
        (visitor(accept=""), "en"),
        (visitor(accept="*"), "en"),
        (visitor(accept="tlh,x-klingon;q=0.5"), "en"),
        (visitor(accept="de-CH,de;q=0.9"), "de"),
        (visitor(accept="ZH-hant-TW"), "zh"),
        (visitor(accept="pt-BR, fr;q=0.8, en;q=0.5"), "fr"),
        (visitor(accept="en-GB,de;q=0.9"), "en"),
        (visitor(cookie="ar"), "ar"),
        (visitor(accept="de-CH,de;q=0.9", cookie="es"), "es"),
        (visitor(accept="de-CH,de;q=0.9", cookie="en"), "en"),
        (visitor(accept="de-CH,de;q=0.9", cookie="../../etc/passwd"), "de"),
    ],
)
def test_a_visitor_is_spoken_to_in_their_language(request_: Any, language: str) -> None:
    say = texts.say_for(request_)
    assert say("empty_message") == file_of(language)["empty_message"]
    assert say("tokens", n=7) == file_of(language)["tokens"].format(n=7)


def test_an_unknown_language_speaks_english() -> None:
    assert texts.speaker("tlh")("title") == file_of("en")["title"]


# The languages of the multilingual tab


def test_the_languages_are_many_and_each_is_there_once() -> None:
    assert len(LANGUAGE_ROWS) >= 30
    for key in ("code", "native", "english"):
        values = [row[key] for row in LANGUAGE_ROWS]
        assert len(values) == len(set(values)), key
    assert list(tabs.languages()) == [row["code"] for row in LANGUAGE_ROWS]


@every_row
def test_rtl_is_set_exactly_where_the_script_runs_right_to_left(row: dict[str, Any]) -> None:
    directions = {unicodedata.bidirectional(char) for char in row["native"] if char.isalpha()}
    assert ("rtl" in row) == bool(directions & {"R", "AL"})
    assert row.get("rtl", True) is True


def test_every_default_language_is_there() -> None:
    for tab in tabs.TABS:
        for option in tab.options:
            assert option.check(option.default) == option.default


# The example prompts


def test_only_tabs_have_prompts() -> None:
    assert set(PROMPTS) == {tab.id for tab in tabs.TABS}


@every_tab
def test_a_tab_has_enough_short_prompts(tab: tabs.TabSpec) -> None:
    prompts = [example.text for example in tab.examples]
    assert len(prompts) >= 4
    assert len(set(prompts)) == len(prompts)
    for prompt in prompts:
        assert 0 < len(prompt) <= 600, prompt
        assert prompt == prompt.strip(), prompt
    for example in tab.examples:
        tab.check_options(example.options)
        assert set(example.options) <= {option.name for option in tab.options}


@every_tab
def test_an_example_has_a_picture_exactly_where_the_tab_takes_them(tab: tabs.TabSpec) -> None:
    for example in tab.examples:
        assert bool(example.picture) == tab.pictures
        if example.picture:
            decode(tabs.example_picture(example.picture))


def test_no_picture_is_shipped_for_nothing() -> None:
    shipped = {file.name for file in (tabs.EXAMPLES / "pictures").iterdir()}
    assert shipped == {example.picture for tab in tabs.TABS for example in tab.examples if example.picture}
