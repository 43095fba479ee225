"""Whoever names something that is not known is told what may be meant, in one sentence that can be printed."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backends.adapters.openai.remote_engines import BadEngines, read_engines
from backends.catalog.cards import Catalog
from backends.core.errors import InvalidRequest, UnknownModel
from backends.core.nearest import MOST_NAMED, MOST_SHOWN, _plain, nearest, quoted
from backends.core.types import Sampling
from backends.host.settings import BadSettings, read_settings
from ui.conversation.choices import check_sampling
from ui.conversation.tabs import TABS, Option, languages, tab

CATALOG = Catalog.read()
OPTIONS = [(spec.id, option) for spec in TABS for option in spec.options if option.choices]


def flipped(name: str) -> list[str]:
    """The slips of somebody who types a name: a letter missing, one too many, two the wrong way round."""
    middle = len(name) // 2
    swapped = name[: middle - 1] + name[middle] + name[middle - 1] + name[middle + 1 :]
    return [slip for slip in (name[:middle] + name[middle + 1 :], name + name[-1], swapped) if slip != name]


# --- the helper ----------------------------------------------------------------------------------


@given(st.one_of(st.text(), st.text(st.characters(categories=["Cs", "Cc", "Cf"])), st.integers(), st.none()))
def test_what_is_shown_is_short_and_can_be_printed(given: object) -> None:
    assert quoted(given).isprintable()
    assert len(quoted(given)) <= 2 + 10 * MOST_SHOWN  # an escape is up to ten characters long
    if isinstance(given, str) and given.isascii() and given.isprintable():
        assert len(quoted(given)) <= 2 + 2 * MOST_SHOWN


@pytest.mark.parametrize(
    "given", [10**9000, [1] * 9000, {"a": "b" * 9000}, float("nan")], ids=["number", "list", "dict", "nan"]
)
def test_what_is_no_text_is_shown_shortly_too(given: object) -> None:
    assert len(quoted(given)) <= MOST_SHOWN


words = st.text("abcXY-_ 7", min_size=1, max_size=12)


@given(words | st.text(max_size=300), st.lists(words, max_size=20))
def test_only_known_names_are_named_each_once_and_few_of_them(given: str, known: list[str]) -> None:
    said = nearest(given, known)
    named = re.findall(r"'([^']*)'", said)
    assert set(named) <= set(known)
    assert len(set(named)) == len(named) <= MOST_NAMED
    assert bool(said) == bool(named)
    assert (_plain(given) in map(_plain, known) and _plain(given) != "") <= bool(named)


@pytest.mark.parametrize("given", [None, 7, [], "", " ", "\ud800", "zzzzzz"])
def test_where_nothing_is_near_nothing_is_said(given: object) -> None:
    assert nearest(given, ["temperature", "top_p"]) == ""


# --- every place where something is named ----------------------------------------------------------


@pytest.mark.parametrize("card", list(CATALOG), ids=lambda card: card.id)
def test_a_model_with_a_slip_in_its_id_is_found(card: Any) -> None:
    for slip in [*flipped(card.id), card.id.upper(), f"Qwen/{card.name}", card.id.replace("-", "_")]:
        if slip in {known.id for known in CATALOG}:
            continue
        with pytest.raises(UnknownModel) as caught:
            CATALOG.get(slip)
        assert repr(card.id) in caught.value.message, slip
        assert caught.value.message.endswith(".")


def test_what_is_like_no_model_is_only_shown() -> None:
    with pytest.raises(UnknownModel) as caught:
        CATALOG.get("\x1b[31m" + "z" * 500)
    assert caught.value.message == f"There is no model with the id '\\x1b[31m{'z' * 35}'… in the catalog."


@pytest.mark.parametrize("name", [name for name in Sampling.model_fields if len(name) > 4])
def test_a_setting_with_a_slip_in_its_name_is_found(name: str) -> None:
    for slip in flipped(name):
        with pytest.raises(InvalidRequest, match=f"'{name}'.*\\.$"):
            check_sampling(Sampling(), {slip: 1})


@pytest.mark.parametrize(("tab_id", "option"), OPTIONS, ids=[f"{tab_id} {option.name}" for tab_id, option in OPTIONS])
def test_a_choice_with_a_slip_is_found(tab_id: str, option: Option) -> None:
    for choice in option.choices:
        for slip in flipped(choice) if len(choice) > 3 else []:
            with pytest.raises(InvalidRequest, match=f"the nearest (is|are).*{choice!r}.*\\.$"):
                option.check(slip)


@pytest.mark.parametrize("code", languages())
def test_a_language_is_found_by_its_name(code: str) -> None:
    targets = next(option for option in tab("multilingual").options if option.kind == "languages")
    for name in {languages()[code].english, languages()[code].native, code.upper()} - set(languages()):
        with pytest.raises(InvalidRequest, match=rf"; {name!r} is none; the nearest (is|are).*'{code}'.*\.$"):
            targets.check([name])


REFUSED: dict[str, tuple[list[str], dict[str, str], str]] = {
    "an engine": (["--engine", "llamacpp"], {}, "'llama_cpp'"),
    "a model": (["--model", "qwen3-8"], {}, "'qwen3-8b'"),
    "a flag": (["--modle", "x"], {}, "'--model'"),
    "a switch": (["--no-ofline"], {}, "'--offline'"),
    "a variable": ([], {"PLAYGROUND_PROT": "1"}, "'PLAYGROUND_PORT'"),
}


@pytest.mark.parametrize(("arguments", "environment", "named"), REFUSED.values(), ids=REFUSED)
def test_a_setting_of_the_host_with_a_slip_is_found(
    monkeypatch: pytest.MonkeyPatch, arguments: list[str], environment: dict[str, str], named: str
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(BadSettings) as caught:
        read_settings(arguments)
    assert any(named in problem and "\n" not in problem for problem in caught.value.problems), caught.value.problems


def test_a_setting_of_a_host_is_shown_so_that_it_can_be_printed() -> None:
    with pytest.raises(BadSettings) as caught:
        read_settings(["--port", "\x1b[31m" + "9" * 500])
    assert all(problem.isprintable() and len(problem) < 200 for problem in caught.value.problems)


ENGINES = {
    'name = "a"\nurl = "http://a/v1"\ndialect = "vlm"': "'vllm'",
    'name = "a"\nurl = "http://a/v1"\nparalel = 3': "'parallel'",
}


@pytest.mark.parametrize(("row", "named"), ENGINES.items(), ids=["a dialect", "a setting"])
def test_a_slip_in_the_list_of_engines_is_found(tmp_path: Any, row: str, named: str) -> None:
    file = tmp_path / "engines.toml"
    file.write_text(f"[[engine]]\n{row}\n", "utf-8")
    with pytest.raises(BadEngines) as caught:
        read_engines(file)
    (problem,) = caught.value.problems
    assert named in problem


@pytest.mark.parametrize("refuse", [lambda name: CATALOG.get(name), lambda name: tab("coding").options[1].check(name)])
def test_a_long_or_hostile_name_makes_no_long_sentence(refuse: Callable[[str], object]) -> None:
    for name in ("x" * 100_000, "\u202e" * 200, "\ud800", "a\nb", "'; drop", "\x00"):
        with pytest.raises(InvalidRequest) as caught:
            refuse(name)
        assert caught.value.message.isprintable()
        assert len(caught.value.message) < 700
