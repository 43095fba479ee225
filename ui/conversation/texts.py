"""The texts of the interface in six languages, from `i18n/<language>.json`.

English is complete by test; a key missing elsewhere falls back to it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Protocol

from ui.conversation.render import Say

FOLDER = Path(__file__).resolve().parents[1] / "i18n"
LANGUAGES = {
    "en": "English",
    "zh": "中文",
    "es": "Español",
    "fr": "Français",
    "de": "Deutsch",
    "ar": "العربية",
}
COOKIE = "playground-language"


class Asked(Protocol):
    """What tells a visitor's language."""

    @property
    def cookies(self) -> Mapping[str, str]: ...

    @property
    def headers(self) -> Mapping[str, str]: ...


@cache
def dictionaries() -> dict[str, dict[str, str]]:
    texts = {code: json.loads((FOLDER / f"{code}.json").read_text("utf-8")) for code in LANGUAGES}
    return {code: texts["en"] | own for code, own in texts.items()}


@cache
def speaker(language: str) -> Say:
    """`say` in one language; unknown codes speak English."""
    texts = dictionaries().get(language, dictionaries()["en"])

    def say(key: str, **values: object) -> str:
        return texts[key].format(**values) if values else texts[key]

    return say


def say_for(request: Asked | None) -> Say:
    return speaker(language_for(request))


def language_for(request: Asked | None) -> str:
    """The visitor's language: what they chose, else the first one their browser asks for that there is."""
    if request is None:
        return "en"
    wanted = [str(request.cookies.get(COOKIE, ""))]
    wanted += [part.split(";")[0].strip() for part in str(request.headers.get("accept-language", "")).split(",")]
    codes = (code.split("-")[0].lower() for code in wanted)
    return next((code for code in codes if code in LANGUAGES), "en")
