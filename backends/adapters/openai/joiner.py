"""Takes the joiner of `special_tokens.defuse` out of what an engine writes, wherever its pieces are cut.

A model copies what it reads into the code that it writes, and code with an invisible character in it does not run.
Works on events: what tells thoughts from the answer comes before, so that a '</think>' that someone typed ends nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import replace

from backends.core.special_tokens import AFTER_THE_SIGN, LONGEST_NAME, NAMES, WORD_JOINER, undefuse
from backends.core.types import Answer, Done, Loading, Thought, TokenLogprob

_Event = Loading | Thought | Answer | Done
_NAME_BEGUN = "|".join(sorted({name[:length] for name in NAMES for length in range(1, len(name) + 1)}))
_MAY_GO_ON = re.compile(
    rf"<(?:{WORD_JOINER}(?:\|(?:[A-Za-z0-9_]{{1,{LONGEST_NAME}}}\|?)?|/?(?:{_NAME_BEGUN})?)?)?"  # matched to the end
)
# The joiner is two tokens of Qwen's, neither a whole character: engines then name each with replacement characters.
_JOINED_TOKENS = re.compile(rf"(?<=<)(?:{WORD_JOINER}|\ufffd+)(?={AFTER_THE_SIGN})")


class Unjoiner:
    """For one answer, whose events it is given in their order; idle where nothing was `joined` into the prompt."""

    def __init__(self, joined: bool) -> None:
        self._joined = joined
        self._held: list[Thought | Answer] = []

    def clean(self, events: Iterable[_Event]) -> Iterator[_Event]:
        """The events. Text that may turn out to be a joined control token is held back until it is known."""
        for event in events:
            if self._held and type(event) is not type(self._held[0]):
                yield self._released()
            if not self._joined or not isinstance(event, Thought | Answer):
                yield event
                continue
            self._held.append(event)
            if not _may_go_on("".join(piece.text for piece in self._held)):
                yield self._released()

    def _released(self) -> Thought | Answer:
        """What was held as one piece, with all its tokens."""
        held, self._held = self._held, []
        text, tokens = undefuse("".join(piece.text for piece in held)), sum(piece.tokens for piece in held)
        if isinstance(held[0], Thought):
            return Thought(text, tokens)
        rows = [row for piece in held if isinstance(piece, Answer) for row in piece.logprobs]
        return Answer(text, tokens, _named(rows))


def _may_go_on(text: str) -> bool:
    sign = text.rfind("<")
    return sign >= 0 and _MAY_GO_ON.fullmatch(text, sign) is not None


def _named(rows: list[TokenLogprob]) -> tuple[TokenLogprob, ...]:
    """The tokens' names without the joiner; a token that was nothing else is left out."""
    whole = "".join(row.token for row in rows)
    ours = {place for found in _JOINED_TOKENS.finditer(whole) for place in range(*found.span())}
    kept, start = [], 0
    for row in rows:
        name = "".join(letter for place, letter in enumerate(row.token, start) if place not in ours)
        before = whole[start - 1 : start] if start else ""
        start += len(row.token)
        if name:
            others = ((_unjoined(before, other), value) for other, value in row.top)
            kept.append(replace(row, token=name, top=tuple((other, value) for other, value in others if other)))
    return tuple(kept)


def _unjoined(before: str, name: str) -> str:
    """An alternative: what would have come after it is not known."""
    return (before + name).replace("<" + WORD_JOINER, "<")[len(before) :]
