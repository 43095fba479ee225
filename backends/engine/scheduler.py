"""Whose turn it is: a line in front of each model, for as long as its slots are taken.

Turns go round between people, not between questions: nobody is answered twice at once, and who asks in five tabs waits
after each of their turns until everybody else has had one. Knows nothing of models; people are keys.
"""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from collections.abc import Generator
from dataclasses import dataclass

from backends.core.cancel import Cancel
from backends.core.errors import Busy
from backends.core.types import Queued

LOOK_SECONDS = 0.5  # how often someone in line looks up even when nothing has moved
MOST_OF_ONE = 12  # questions of one person in line; one question in many languages is as many as there are columns
MOST = 250  # in line altogether


@dataclass(frozen=True, slots=True)
class Turn:
    """A slot taken by `owner` at `taken_at` (time.monotonic)."""

    owner: object
    taken_at: float


class Line:
    """The line in front of one model that serves `capacity` requests at once."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self._served: Counter[object] = Counter()
        self._waiting: dict[object, deque[object]] = {}  # tickets by person; whose turn comes next stands first
        self._changed = threading.Condition()
        self._seconds: deque[float] = deque(maxlen=20)  # how long recent turns took

    @property
    def running(self) -> int:
        return self._served.total()

    @property
    def waiting(self) -> int:
        return sum(map(len, self._waiting.values()))

    def wait(self, cancel: Cancel, person: str = "") -> Generator[Queued, None, Turn | None]:
        """Tells the place in line whenever it moves. Returns the turn, None once cancelled.

        A question without a key is somebody's own. Raises `Busy` where the line is too long.
        """
        ticket, told = object(), 0
        owner = person or ticket
        undo = cancel.on_cancel(self._wake)
        try:
            with self._changed:
                self._require_room(owner)
                self._waiting.setdefault(owner, deque()).append(ticket)
            while True:
                with self._changed:
                    if cancel.is_set():
                        return None
                    position = self._order().index(ticket) + 1
                    if position == 1 and self.running < self.capacity and not self._served[owner]:
                        self._served[owner] += 1
                        return Turn(owner, time.monotonic())
                    if position == told:
                        self._changed.wait(LOOK_SECONDS)
                        continue
                told = position
                yield Queued(position, self._eta(position))
        finally:
            undo()
            with self._changed:
                self._leave(owner, ticket)
                self._changed.notify_all()

    def give_back(self, turn: Turn) -> None:
        """Ends a turn. Whatever else its owner asks comes after what the others have asked by now."""
        with self._changed:
            self._served[turn.owner] -= 1
            self._served += Counter()  # forgets who has none
            if (tickets := self._waiting.pop(turn.owner, None)) is not None:
                self._waiting[turn.owner] = tickets
            self._seconds.append(time.monotonic() - turn.taken_at)
            self._changed.notify_all()

    def _require_room(self, owner: object) -> None:
        own = len(self._waiting.get(owner, ()))
        if own >= MOST_OF_ONE:
            raise Busy(f"You have {own} questions in line already.", "Wait until one is answered, or stop one.")
        if (waiting := self.waiting) >= MOST:
            eta = self._eta(waiting)
            soon = f"in about {eta:.0f} s" if eta else "in a minute"
            raise Busy(f"The line is full: {waiting} questions wait.", f"Send again {soon}.")

    def _order(self) -> list[object]:
        """The tickets as their turns will come: everybody's next before anybody's second, who is served now last."""
        turns = (
            (number + self._served[owner], place, ticket)
            for place, (owner, tickets) in enumerate(self._waiting.items())
            for number, ticket in enumerate(tickets)
        )
        return [ticket for *_, ticket in sorted(turns, key=lambda turn: turn[:2])]

    def _leave(self, owner: object, ticket: object) -> None:
        if ticket in (tickets := self._waiting.get(owner, deque())):
            tickets.remove(ticket)
        if not tickets:
            self._waiting.pop(owner, None)

    def _wake(self) -> None:
        with self._changed:
            self._changed.notify_all()

    def _eta(self, position: int) -> float | None:
        """Seconds until it is the turn of this place, from how long recent turns took."""
        if not self._seconds:
            return None
        return position * (sum(self._seconds) / len(self._seconds)) / self.capacity
