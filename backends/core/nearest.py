"""What is said of a name that is not known: the name itself, fit to be printed, and the known names near it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from difflib import get_close_matches

MOST_SHOWN = 40  # characters of what was given
MOST_NAMED = 3


def quoted(given: object) -> str:
    """`given` in quotes where it is a text: shortened, and with what cannot be printed written as an escape."""
    if isinstance(given, str):
        return repr(given[:MOST_SHOWN]) + "…" * (len(given) > MOST_SHOWN)
    try:
        return f"{given!r:.{MOST_SHOWN}}"
    except ValueError:  # Python writes no number of more than 4,300 digits
        return "a number of thousands of digits"


def nearest(given: object, known: Iterable[str] | Mapping[str, str]) -> str:
    """The end of a sentence, "; the nearest are 'a' and 'b'"; empty where nothing is near.

    `known`: the names, or a mapping of all that may be meant by one of them to that name. Case, an owner before a
    slash, and whether words are joined by '-', '_' or a space do not count.
    """
    names = known if isinstance(known, Mapping) else {name: name for name in known}
    spellings = {_plain(alias): name for alias, name in names.items()}
    asked = _plain(given[:200]) if isinstance(given, str) else ""
    if not asked:
        return ""
    holding = [alias for alias in spellings if len(asked) > 1 and asked in alias]
    holding.sort(key=lambda alias: (alias.index(asked), len(alias)))
    close = get_close_matches(asked, spellings, MOST_NAMED)
    meant = list(dict.fromkeys(spellings[alias] for alias in (*holding, *close)))[:MOST_NAMED]
    if not meant:
        return ""
    *others, last = map(repr, meant)
    return f"; the nearest are {', '.join(others)} and {last}" if others else f"; the nearest is {last}"


def _plain(name: str) -> str:
    return name.strip().casefold().rpartition("/")[2].replace("_", "-").replace(" ", "-")
