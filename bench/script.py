"""What the scripted servers say: the question itself tells how long the answer is and how fast it comes.

Playground and ChatInterface follow the same words at the same moments, so that only what lies between them differs.
"""

from __future__ import annotations

from dataclasses import dataclass

_SENTENCES = (
    "A good teacher explains every step before giving an answer. A careful reader checks each example until it is "
    "clear, and a patient engineer repeats the last result without any hurry, one line at a time, with fresh eyes."
)
WORDS = tuple(_SENTENCES.split())
PARAGRAPH = 70  # words


@dataclass(frozen=True, slots=True)
class Question:
    """`name` is unlike any other in the run; `tokens` come `interval_s` apart, the first after `delay_s`."""

    name: str
    tokens: int
    interval_s: float
    delay_s: float

    @property
    def text(self) -> str:
        return f"{self.name} {self.tokens} {self.interval_s} {self.delay_s}"

    @property
    def first(self) -> str:
        """The first token, which occurs nowhere else."""
        return f"-first-{self.name}-"

    @property
    def last(self) -> str:
        return f"-last-{self.name}-"

    @classmethod
    def read(cls, text: str) -> Question:
        name, tokens, interval_s, delay_s = text.split()
        return cls(name, int(tokens), float(interval_s), float(delay_s))

    def answer(self) -> tuple[str, ...]:
        """`tokens` words, each with what separates it from the one before, in paragraphs."""
        between = (
            ("\n\n" if k % PARAGRAPH == 0 else " ") + WORDS[k % len(WORDS)] for k in range(1, max(1, self.tokens - 1))
        )
        return (self.first, *between, " " + self.last)


def prose(words: int, start: int) -> str:
    """Plain English of so many words, a different piece of it for each `start`."""
    return " ".join(WORDS[(start * 7 + k * (1 + start % 5)) % len(WORDS)] for k in range(words))
