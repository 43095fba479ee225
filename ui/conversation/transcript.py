"""A conversation as the playground knows it: turns of one question and one reply, or one reply a language.

The transcript is the truth and what the screen shows is a projection of it. Knows nothing of gradio. Comes in from
outside (a reload, an imported file) through pydantic, so that a foreign or broken file is refused whole.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from backends.catalog.cards import Card
from backends.core.errors import InvalidRequest
from backends.core.types import Failure, Loading, Message, Part, Queued
from backends.core.types import Text as Words
from backends.pictures.boxes import Mark
from backends.pictures.decoder import fitted
from ui.conversation.pictures import MOST_PICTURES, Album, Picture, album, found_again

MAX_TURNS = 2000
MAX_CHARACTERS = 4_000_000
MAX_REPLIES = 50
MAX_NAME = 500  # characters; a server may call its models anything

Text = Annotated[str, Field(max_length=MAX_CHARACTERS)]
State = Literal["queued", "loading", "thinking", "answering", "done", "stopped", "failed"]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)


_MOST = 10**12  # what no figure of ours reaches, and JavaScript still counts exactly
_Count = Annotated[int, Field(ge=-_MOST, le=_MOST)]
_Figure = Annotated[float, Field(ge=-_MOST, le=_MOST)]
_Name = Annotated[str, Field(max_length=MAX_NAME)]


class Stats(_Frozen):
    """The figures under an answer. Seconds and tokens; `context` is the most tokens a conversation may have."""

    model: _Name = ""
    engine: _Name = ""
    queue_s: _Figure = 0.0
    load_s: _Figure = 0.0
    ttft_s: _Figure | None = None
    prompt_tokens: _Count = 0
    cached_tokens: _Count = 0
    thinking_tokens: _Count = 0
    answer_tokens: _Count = 0
    tokens_per_s: _Figure | None = None
    ignored: Annotated[tuple[_Name, ...], Field(max_length=100)] = ()
    dropped_turns: _Count = 0
    context: _Count = 0


class Reply(_Frozen):
    """What came back to one question, in one language where several were asked for.

    `progress` is where it stands before the first word and never leaves the server; `cut` marks an answer that
    reached its longest length. `marks` are the places that it names, in pixels of the picture as uploaded.
    """

    language: Annotated[str, Field(max_length=20)] = ""
    thoughts: Text = ""
    answer: Text = ""
    state: State = "queued"
    cut: bool = False
    prompted: bool = False
    thinking_s: _Figure | None = None
    thinking_tokens: _Count = 0
    stats: Stats | None = None
    marks: Annotated[tuple[Mark, ...], Field(max_length=200)] = ()
    failure: Annotated[Failure | None, Field(exclude=True)] = None
    progress: Annotated[Queued | Loading | None, Field(exclude=True)] = None

    @property
    def over(self) -> bool:
        return self.state in ("done", "stopped", "failed")


class Turn(_Frozen):
    user: Text
    pictures: Annotated[tuple[Picture, ...], Field(max_length=MOST_PICTURES)] = ()
    replies: Annotated[tuple[Reply, ...], Field(max_length=MAX_REPLIES)] = ()

    @property
    def failed(self) -> bool:
        """Whether nothing at all came back."""
        return bool(self.replies) and all(reply.state == "failed" and not reply.answer for reply in self.replies)

    @property
    def thinking(self) -> bool:
        return any(reply.state == "thinking" for reply in self.replies)


class Transcript(_Frozen):
    turns: tuple[Turn, ...] = ()

    @property
    def failed(self) -> bool:
        """Whether nothing came back to the last question: it is asked anew, and its pictures wait to be sent again."""
        return bool(self.turns) and self.turns[-1].failed

    @property
    def at_rest(self) -> Transcript:
        """With what was still being written when its handler broke off marked as stopped."""
        turns = (turn.model_copy(update={"replies": tuple(map(_stopped, turn.replies))}) for turn in self.turns)
        return Transcript(turns=tuple(turns))

    @property
    def pictures(self) -> tuple[Picture, ...]:
        return tuple(picture for turn in self.turns for picture in turn.pictures)

    def ask(self, text: str, languages: tuple[str, ...], pictures: tuple[Picture, ...] = ()) -> Transcript:
        """With one more turn, whose replies are still to come."""
        replies = tuple(Reply(language=language) for language in languages)
        turn = Turn(user=text, pictures=pictures, replies=replies)
        return Transcript(turns=(*self.turns, turn))

    def with_replies(self, replies: tuple[Reply, ...]) -> Transcript:
        """With the last turn's replies replaced."""
        last = self.turns[-1].model_copy(update={"replies": replies})
        return Transcript(turns=(*self.turns[:-1], last))

    def before(self, turn: int) -> Transcript:
        return Transcript(turns=self.turns[:turn])

    def messages(self, card: Card, language: str, visual_tokens: int = 0) -> tuple[Message, ...]:
        """All of it as the model is to read it; thoughts stay only where the card's rule keeps them.

        Pictures come in the size at which each costs at most `visual_tokens`.
        """
        keep = card.thinking.history == "keep"
        messages: list[Message] = []
        seen: list[Part] = []
        for turn in self.turns:
            seen += [fitted(p.image, card.eyes, visual_tokens) for p in turn.pictures if p.image and card.eyes]
            reply = next((r for r in turn.replies if r.language == language and r.answer), None)
            if reply is None and turn is not self.turns[-1]:
                continue  # a question that was never answered is not part of the conversation; its pictures are
            messages.append(Message("user", (*seen, Words(turn.user))))
            seen = []
            if reply is not None:
                messages.append(Message.of("assistant", reply.answer, reply.thoughts if keep else ""))
        return tuple(messages)


class Growing(_Frozen):
    """The replies to the question at `turn` as far as they are written: kept often, where a conversation is too long
    for that."""

    turn: _Count
    replies: Annotated[tuple[Reply, ...], Field(max_length=MAX_REPLIES)]

    @classmethod
    def of(cls, transcript: Transcript) -> Growing:
        return cls(turn=len(transcript.turns) - 1, replies=transcript.turns[-1].replies)


class SavedConversation(_Frozen):
    """A conversation as a file or in the visitor's browser. `settings` is what the panel's controls stood at.

    `tray` is what is attached and not sent yet. A file brings its pictures in `album`; in the browser that lies beside.
    """

    format: Literal["qwen-playground-conversation"] = "qwen-playground-conversation"
    version: Literal[1] = 1
    tab: Annotated[str, Field(max_length=40)] = ""
    settings: dict[str, object] = {}
    turns: Annotated[tuple[Turn, ...], Field(max_length=MAX_TURNS)] = ()
    tray: Annotated[tuple[Picture, ...], Field(max_length=MOST_PICTURES)] = ()
    album: dict[str, object] = {}

    @property
    def transcript(self) -> Transcript:
        """The turns, with a reply that was cut off by the end of the page marked as stopped."""
        turns = tuple(
            turn.model_copy(
                update={
                    "replies": tuple(map(_restored, turn.replies)),
                    "pictures": tuple(found_again(picture, self.album) for picture in turn.pictures),
                },
            )
            for turn in self.turns
        )
        return Transcript(turns=turns)

    def with_growth(self, growing: Growing) -> SavedConversation:
        """With what came of the last answer after the rest was kept; the same where that is of another answer."""
        last = self.turns[-1] if self.turns else None
        if last is None or growing.turn != len(self.turns) - 1 or any(reply.over for reply in last.replies):
            return self
        if [reply.language for reply in last.replies] != [reply.language for reply in growing.replies]:
            return self
        return self.model_copy(update={"turns": Transcript(turns=self.turns).with_replies(growing.replies).turns})

    @property
    def attached(self) -> tuple[Picture, ...]:
        """The tray's pictures that are still there."""
        tray = (found_again(picture, self.album) for picture in self.tray)
        return tuple(picture for picture in tray if picture.image)


def read_conversation(text: str) -> SavedConversation:
    """Raises `InvalidRequest` with one sentence on anything but a conversation of this playground."""
    if len(text) > MAX_CHARACTERS:
        raise InvalidRequest(
            f"The file is longer than {MAX_CHARACTERS:,} characters; nothing was imported.", "Choose a smaller file."
        )
    foreign = InvalidRequest(
        "The file is not a conversation exported from this playground; nothing was imported.",
        "Choose a file made with 'Export as JSON'.",
    )
    try:
        conversation = SavedConversation.model_validate_json(text)
    except ValidationError as exc:
        raise foreign from exc
    if not {"format", "version"} <= conversation.model_fields_set:
        raise foreign
    return conversation


def check_turns(transcript: Transcript) -> None:
    """Raises `InvalidRequest` where one more question would make it longer than what can be kept and brought back."""
    if len(transcript.turns) >= MAX_TURNS:
        raise InvalidRequest(
            f"The conversation has {len(transcript.turns):,} turns; at most {MAX_TURNS:,} are kept.",
            "Export it, then clear it and go on.",
        )


def album_of(transcript: Transcript, tray: tuple[Picture, ...]) -> Album:
    """The pictures of a conversation for keeping, the newest first."""
    return album(reversed((*transcript.pictures, *tray)))


def _stopped(reply: Reply) -> Reply:
    return reply if reply.over else reply.model_copy(update={"state": "stopped", "progress": None})


def _restored(reply: Reply) -> Reply:
    """What is left of a reply when its page is gone: what was being written has stopped."""
    return _stopped(reply).model_copy(update={"failure": None, "progress": None})
