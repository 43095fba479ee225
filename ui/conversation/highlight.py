"""Colours for code: what a lexer of Pygments finds, as a handful of classes for the stylesheet.

The text of the result is the code, byte for byte: what a lexer changes or does not know is shown without colours.
"""

from __future__ import annotations

import html
import time
from functools import lru_cache
from itertools import groupby
from operator import itemgetter

from pygments.lexer import Lexer
from pygments.lexers import get_lexer_by_name
from pygments.token import Comment, Generic, Keyword, Name, Number, String, _TokenType
from pygments.util import ClassNotFound

LONGEST = 20_000
"""Characters; longer code is shown without colours."""
LONGEST_SECONDS = 0.1
"""Of this thread's own work; what takes longer is shown without colours: lexers are slow on what is no code."""

CLASSES = {
    Comment: "comment",
    Comment.Preproc: "keyword",
    Comment.PreprocFile: "string",
    Keyword: "keyword",
    Keyword.Constant: "number",
    Keyword.Type: "type",
    Name.Attribute: "type",
    Name.Builtin: "type",
    Name.Class: "name",
    Name.Decorator: "name",
    Name.Exception: "type",
    Name.Function: "name",
    Name.Tag: "keyword",
    Number: "number",
    String: "string",
    Generic.Deleted: "deleted",
    Generic.Inserted: "inserted",
    Generic.Heading: "name",
}
"""A token's class is that of the nearest kind above it which stands here."""


def highlighted(code: str, language: str) -> str:
    """`code` as HTML. `language`: any name that Pygments knows; of another one the code is shown plain."""
    lexer = _lexer(language.lower()) if language and len(code) <= LONGEST else None
    if lexer is None:
        return escaped(code)
    # Without Pygments' own preparation, which changes line ends and strips empty lines.
    until, tokens = time.thread_time() + LONGEST_SECONDS, []
    for _, kind, text in lexer.get_tokens_unprocessed(code):
        tokens.append((_class(kind), text))
        if time.thread_time() > until:
            return escaped(code)
    if "".join(text for _, text in tokens) != code:
        return escaped(code)
    runs = ((name, "".join(text for _, text in run)) for name, run in groupby(tokens, itemgetter(0)))
    return "".join(f'<span class="{name}">{escaped(text)}</span>' if name else escaped(text) for name, text in runs)


def escaped(text: str) -> str:
    """As the text of an element. A carriage return would be made a line feed by the browser's parser."""
    return html.escape(text).replace("\r", "&#13;")


@lru_cache(maxsize=64)
def _lexer(language: str) -> Lexer | None:
    try:
        return get_lexer_by_name(language)
    except ClassNotFound:
        return None


@lru_cache(maxsize=1024)
def _class(kind: _TokenType) -> str:
    return next((CLASSES[above] for above in reversed(kind.split()) if above in CLASSES), "")
