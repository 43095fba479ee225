"""Pictures for the tests, made by Pillow or by hand, and a card that sees them."""

from __future__ import annotations

import io
import struct
import zlib
from random import Random
from typing import Any

import PIL.Image

from backends.catalog.cards import Card
from backends.catalog.eyes import Eyes
from backends.pictures.decoder import decode
from ui.conversation.pictures import Picture

EYES = Eyes(side=32, fewest=4, default=64, most=256, boxes="thousandths")


def file_of(picture: PIL.Image.Image, kind: str = "PNG", **how: Any) -> bytes:
    file = io.BytesIO()
    picture.save(file, kind, **how)
    return file.getvalue()


def drawn(width: int = 96, height: int = 64, colour: str = "red") -> bytes:
    return file_of(PIL.Image.new("RGB", (width, height), colour))


def grain(width: int, height: int, seed: int = 1) -> bytes:
    """What cannot be packed."""
    return file_of(PIL.Image.frombytes("RGB", (width, height), Random(seed).randbytes(3 * width * height)))


def bomb() -> bytes:
    """A header of a PNG file that claims 50,000 x 50,000 pixels."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 50_000, 50_000, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")


def picture(width: int = 96, height: int = 64, colour: str = "red") -> Picture:
    return Picture.of(decode(drawn(width, height, colour)))


def without_bytes(known: Picture) -> Picture:
    """As it comes back from a file that has lost it."""
    return known.model_copy(update={"image": None})


def seeing(card: Card, **changes: Any) -> Card:
    """The card with eyes: 32 pixels a token, 4 to 256 tokens a picture, boxes in thousandths."""
    return card.model_copy(update={"modalities": frozenset({"text", "image"}), "eyes": EYES, **changes})
