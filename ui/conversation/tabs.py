"""The tabs as data. A new tab is one more row; what it looks like is the panel's business."""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Literal

from backends.catalog import prompts
from backends.core.errors import InvalidRequest
from backends.core.nearest import nearest, quoted
from backends.core.types import Text
from ui.conversation.words import check_text

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
MAX_TARGETS = 6
MAX_OPTION = 4000  # characters

PROGRAMMING_LANGUAGES = (
    "Python", "JavaScript", "TypeScript", "Java", "C", "C++", "C#", "Go", "Rust", "Swift", "Kotlin", "PHP", "Ruby",
    "R", "Julia", "Lua", "Perl", "Scala", "Haskell", "Bash", "PowerShell", "SQL", "HTML", "CSS", "MATLAB",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Language:
    """A language with its BCP 47 code, its name in its own script and in English; `rtl`: written right to left."""

    code: str
    native: str
    english: str
    rtl: bool = False

    @property
    def label(self) -> str:
        return self.native if self.native == self.english else f"{self.native} · {self.english}"


@cache
def languages() -> dict[str, Language]:
    """The languages of the multilingual tab by code, the biggest first."""
    rows = tomllib.loads((EXAMPLES / "languages.toml").read_text("utf-8"))["language"]
    return {row["code"]: Language(**row) for row in rows}


Value = str | tuple[str, ...]
Options = Mapping[str, Value]
"""The values of a tab's own options by name."""
Instructions = dict[str, tuple[Text, ...]]
"""For each reply that a question gets, what is added to the system prompt: our words, some with someone's in them."""


@dataclass(frozen=True, slots=True)
class Option:
    """One control of the tab's Task section. Labels are keys of the interface texts: <tab>_<name>, <tab>_<choice>."""

    name: str
    kind: Literal["radio", "dropdown", "text", "languages"]
    default: Value
    choices: tuple[str, ...] = ()

    def check(self, value: object) -> Value:
        """The value, if it is one that this option takes. Raises `InvalidRequest` naming the field and its bounds."""
        if self.kind == "languages":
            codes = tuple(value) if isinstance(value, list | tuple) else ()
            unknown = [code for code in codes if not isinstance(code, str) or code not in languages()]
            if unknown or not codes or len(codes) > MAX_TARGETS or len(set(codes)) != len(codes):
                known = {alias: code for code, own in languages().items() for alias in (own.english, own.native, code)}
                among = f"; {quoted(unknown[0])} is none{nearest(unknown[0], known)}" if unknown else ""
                raise InvalidRequest(
                    f"{self.name} must be one to {MAX_TARGETS} different language codes, for example 'en' or"
                    f" 'zh'{among}.",
                    "Choose the languages in the Task section.",
                )
            return codes
        text = check_text(self.name, value, MAX_OPTION)
        if self.choices and text not in self.choices:
            near = nearest(text, self.choices)
            raise InvalidRequest(f"{self.name} must be one of {', '.join(self.choices)}; it was {quoted(text)}{near}.")
        return text


def example_picture(name: str) -> bytes:
    """The file of an example's picture."""
    return (EXAMPLES / "pictures" / name).read_bytes()


def _plain(options: Options) -> Instructions:
    return {"": ()}


def _step_by_step(options: Options) -> Instructions:
    return {"": prompts.ours(prompts.STEP_BY_STEP)}


def _code(options: Options) -> Instructions:
    return {"": prompts.coding(str(options["task"]), str(options["language"]), str(options["constraints"]))}


def _per_language(options: Options) -> Instructions:
    task = str(options["task"])
    return {code: prompts.in_language(task, languages()[code].english) for code in options["targets"]}


@dataclass(frozen=True, slots=True)
class Example:
    """A prompt that fills the composer, and the tab's options and the picture that go with it."""

    text: str
    picture: str = ""
    options: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class TabSpec:
    """One tab."""

    id: str
    instructions: Callable[[Options], Instructions] = _plain
    system: str = ""
    options: tuple[Option, ...] = ()
    columns: bool = False
    lift_boxed: bool = False
    pictures: bool = False

    @property
    def examples(self) -> tuple[Example, ...]:
        return _examples()[self.id]

    def check_options(self, given: Mapping[str, object]) -> dict[str, Value]:
        """The tab's options with defaults filled in. Raises `InvalidRequest`."""
        return {o.name: o.check(given[o.name]) if given.get(o.name) is not None else o.default for o in self.options}


@cache
def _examples() -> dict[str, tuple[Example, ...]]:
    data = tomllib.loads((EXAMPLES / "prompts.toml").read_text("utf-8"))
    return {tab: tuple(Example(**row) for row in rows) for tab, rows in data.items()}


def _look(options: Options) -> Instructions:
    return {"": prompts.ours(prompts.LOOKING[str(options["task"])])}


TABS = (
    TabSpec("chat", system="You are Qwen, a helpful assistant."),
    TabSpec(
        "coding",
        _code,
        options=(
            Option("task", "radio", "write", ("write", "explain", "fix", "test")),
            Option("language", "dropdown", "Python", PROGRAMMING_LANGUAGES),
            Option("constraints", "text", ""),
        ),
    ),
    TabSpec("math", _step_by_step, lift_boxed=True),
    TabSpec(
        "multilingual",
        _per_language,
        options=(
            Option("task", "radio", "answer", ("answer", "translate")),
            Option("targets", "languages", ("en", "zh", "ar")),
        ),
        columns=True,
    ),
    TabSpec(
        "image",
        _look,
        options=(Option("task", "radio", "answer", ("answer", "describe", "read", "chart", "find")),),
        pictures=True,
    ),
)


def tab(tab_id: str) -> TabSpec:
    return next(spec for spec in TABS if spec.id == tab_id)
