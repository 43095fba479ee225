"""The pictures of a conversation: what is attached, what stays with the visitor, and what a file of it holds.

A picture travels as the PNG that the playground's own decoder made. The transcript names it by its content; its bytes
live beside the conversation in the visitor's browser, in an album that is bounded, so the oldest may be missing there.
Knows nothing of gradio.
"""

from __future__ import annotations

import base64
import hashlib
import io
from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import lru_cache
from typing import Annotated

import PIL.Image
from pydantic import BaseModel, ConfigDict, Field, field_validator

from backends.catalog.cards import Card
from backends.catalog.eyes import Eyes, visual_tokens_of
from backends.core.errors import InvalidRequest, PlaygroundError
from backends.core.nearest import quoted
from backends.core.types import Image
from backends.pictures.decoder import decode

MOST_PICTURES = 8  # a message
ALBUM_CHARACTERS = 1_800_000  # browsers keep about five million for a site, and encrypting adds a third
KEPT_BYTES = 200_000  # larger ones are kept as WebP
KEPT_SIDE = 1280  # pixels
SHOWN_SIDE = 1024
THUMBNAIL_SIDE = 160


class Picture(BaseModel):
    """A picture by its content; `width` and `height` in pixels as uploaded. `image` is None where only its name is
    left."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    id: Annotated[str, Field(pattern=r"^[0-9a-f]{16}$")]
    width: Annotated[int, Field(gt=0, le=100_000)]
    height: Annotated[int, Field(gt=0, le=100_000)]
    image: Annotated[Image | None, Field(exclude=True, repr=False)] = None

    @field_validator("image", mode="before")
    @classmethod
    def _decoded_here(cls, image: object) -> Image | None:
        """A file or a browser can only name a picture; bytes come in through `backends.pictures.decoder` alone."""
        return image if isinstance(image, Image) else None

    @classmethod
    def of(cls, image: Image) -> Picture:
        width, height = image.size_as_uploaded
        return cls(id=hashlib.sha256(image.png).hexdigest()[:16], width=width, height=height, image=image)


Album = dict[str, str]
"""Pictures by id as base64 of a file that `backends.pictures.decoder.decode` reads."""


def album(pictures: Iterable[Picture]) -> Album:
    """What is kept of pictures, given newest first, for as long as there is room."""
    kept: Album = {}
    room = ALBUM_CHARACTERS
    for picture in pictures:
        if picture.image is None or picture.id in kept:
            continue
        text = base64.b64encode(_kept(picture.image)).decode()
        if len(text) > room:
            break
        kept[picture.id] = text
        room -= len(text)
    return kept


def found_again(picture: Picture, kept: Mapping[str, object]) -> Picture:
    """The picture with what an album has of it; without bytes where it has none that can be read."""
    data = kept.get(picture.id)
    if picture.image is not None or not isinstance(data, str):
        return picture
    image = _unpacked(data)
    known = image and replace(image, uploaded=(picture.width, picture.height))
    return picture.model_copy(update={"image": known})


def cropped(picture: Picture, box: tuple[int, int, int, int]) -> Picture:
    """What lies in a box, in pixels as uploaded, with a little of its surroundings; about a point, with more."""
    image = picture.image
    if image is None:
        raise InvalidRequest("This picture is no longer here.", "Attach it again.")
    across, down = image.width / picture.width, image.height / picture.height
    x0, x1 = (min(max(x, 0), picture.width) for x in box[::2])
    y0, y1 = (min(max(y, 0), picture.height) for y in box[1::2])
    longer = max(x1 - x0, y1 - y0)
    margin = 0.15 * longer + 2 if longer else max(picture.width, picture.height) / 8
    area = (
        max(0, round((x0 - margin) * across)),
        max(0, round((y0 - margin) * down)),
        min(image.width, round((x1 + margin) * across)),
        min(image.height, round((y1 + margin) * down)),
    )
    if area[2] - area[0] < 2 or area[3] - area[1] < 2:
        raise InvalidRequest("This part of the picture is too small to look at.", "Choose another one.")
    file = io.BytesIO()
    _opened(image).crop(area).save(file, "PNG", compress_level=1)
    return Picture.of(decode(file.getvalue()))


def attached(tray: tuple[Picture, ...], image: Image) -> tuple[Picture, ...]:
    """The tray with one more picture; the same one again changes nothing. Raises `InvalidRequest` on a full tray."""
    picture = Picture.of(image)
    if any(known.id == picture.id for known in tray):
        return tray
    if len(tray) >= MOST_PICTURES:
        raise InvalidRequest(f"A message can have at most {MOST_PICTURES} pictures.", "Remove one first.")
    return (*tray, picture)


def together(first: tuple[Picture, ...], others: tuple[Picture, ...]) -> tuple[Picture, ...]:
    """A tray with both, each picture once, and no more than a message can have."""
    return tuple({picture.id: picture for picture in (*first, *others)}.values())[:MOST_PICTURES]


def check_count(pictures: int, allowed: int = 0) -> None:
    """Raises `InvalidRequest` where these are more than a message can have. `allowed`: by the host; 0 is no limit."""
    most = min(MOST_PICTURES, allowed or MOST_PICTURES)
    if pictures > most:
        raise InvalidRequest(f"images has {pictures:,} pictures; a message can have at most {most}.")


def check_pictures(pictures: tuple[Picture, ...], card: Card, visual_tokens: object, allowed: int = 0) -> int:
    """The visual tokens that each picture may cost. Raises `InvalidRequest` naming the field and its bounds.

    `allowed`: pictures that the host allows a message; 0 is no limit.
    """
    check_count(len(pictures), allowed)
    if card.eyes is None:
        if pictures:
            raise InvalidRequest(
                f"{card.name} reads text only; it cannot see pictures.", "Choose a model that can in the Model section."
            )
        return 0
    eyes = card.eyes
    if (
        isinstance(visual_tokens, bool)
        or not isinstance(visual_tokens, int)
        or not eyes.fewest <= visual_tokens <= eyes.most
    ):
        raise InvalidRequest(
            f"visual_tokens must be a whole number from {eyes.fewest} to {eyes.most:,} for {card.name}; it was"
            f" {quoted(visual_tokens)}."
        )
    return visual_tokens


def cost(picture: Picture, eyes: Eyes, visual_tokens: int) -> int:
    """What a picture costs in tokens at this setting."""
    width, height = (picture.image.width, picture.image.height) if picture.image else (picture.width, picture.height)
    return visual_tokens_of(width, height, eyes, visual_tokens)


@lru_cache(maxsize=64)
def shown(image: Image, side: int = SHOWN_SIDE) -> str:
    """A picture for the screen, at most `side` pixels wide and high, as a data URI."""
    small = _opened(image)
    small.thumbnail((side, side))
    return "data:image/webp;base64," + base64.b64encode(_webp(small)).decode()


@lru_cache(maxsize=64)  # a file may name the same picture in every turn
def _unpacked(data: str) -> Image | None:
    try:
        return decode(base64.b64decode(data, validate=True))
    except (PlaygroundError, ValueError):
        return None


@lru_cache(maxsize=32)
def _kept(image: Image) -> bytes:
    if len(image.png) <= KEPT_BYTES:
        return image.png
    small = _opened(image)
    small.thumbnail((KEPT_SIDE, KEPT_SIDE))
    return _webp(small)


def _opened(image: Image) -> PIL.Image.Image:
    return PIL.Image.open(io.BytesIO(image.png), formats=("PNG",))


def _webp(picture: PIL.Image.Image) -> bytes:
    file = io.BytesIO()
    picture.save(file, "WEBP", quality=88, method=2)
    return file.getvalue()
