"""The playground's own decoder: the only way in which a picture comes in, and how it is made to fit a model's eyes.

Whatever was uploaded leaves here as a plain RGB picture in a fresh PNG file, turned upright, on white where it was
see-through. Nothing of the file itself goes on to an engine or to a screen.
"""

from __future__ import annotations

import io
import math
import re
import threading
import warnings
from functools import lru_cache

import PIL.Image
import simplejpeg

from backends.catalog.eyes import Eyes
from backends.catalog.eyes import fitted_size as fitted_size
from backends.catalog.eyes import visual_tokens_of as visual_tokens_of
from backends.core.errors import InvalidRequest, OutOfMemory
from backends.core.types import Image
from backends.pictures.formats import Damaged, Format, bare, format_of, unreadable_format_of, webp_size

MAX_BYTES = 20 * 2**20
MAX_PIXELS = 50_000_000
MAX_SIDE = 20_000
MIN_SIDE = 2
MAX_RATIO = 100  # of the longer side to the shorter; Qwen's own preparation refuses 200
STORED_PIXELS = 2_560 * 32 * 32  # no model of the catalogue is shown more
READABLE = "PNG, JPEG, WebP, GIF (its first picture) or BMP"

_ORIENTATION = 0x0112
# What EXIF's orientation asks for; 1 is upright.
_TURNS = {
    2: PIL.Image.Transpose.FLIP_LEFT_RIGHT,
    3: PIL.Image.Transpose.ROTATE_180,
    4: PIL.Image.Transpose.FLIP_TOP_BOTTOM,
    5: PIL.Image.Transpose.TRANSPOSE,
    6: PIL.Image.Transpose.ROTATE_270,
    7: PIL.Image.Transpose.TRANSVERSE,
    8: PIL.Image.Transpose.ROTATE_90,
}
_SWAPPING = (5, 6, 7, 8)
# libjpeg's words for what it guesses at. Others are about files that are merely odd, as is padding between headers.
_GUESSED = re.compile(r"Corrupt JPEG data(?!: \d+ extraneous bytes before marker 0x(?:db|dd|e.|fe))|Premature end")
_SAVE_AGAIN = f"Save it as {READABLE}, and add that."
_SMALLER = "Make it smaller, and add it again."
# One at a time: a large picture takes half a gigabyte while it is decoded, and Python's warnings are switched off for
# all threads at once.
_decoding = threading.Lock()


class _Unfit(Exception):
    """What is wrong with the file, as the rest of a sentence that begins with its name, and what to do."""

    def __init__(self, fault: str, hint: str) -> None:
        super().__init__(fault)
        self.fault = fault
        self.hint = hint


def decode(data: bytes, name: str = "picture") -> Image:
    """The picture in an uploaded file, with at most `STORED_PIXELS`; `name` is what the visitor calls the file.

    The first picture of an animation; upright as EXIF says; RGB of 8 bits, white behind what is see-through, colour
    profiles ignored. Raises `InvalidRequest` with one sentence and a hint, `OutOfMemory` where memory does not suffice.
    """
    try:
        return _decoded(data)
    except _Unfit as exc:
        raise InvalidRequest(f"{_called(name)} {exc.fault}", exc.hint) from exc
    except MemoryError as exc:
        raise OutOfMemory(f"{_called(name)} takes more memory to read than there is left.", _SMALLER) from exc


def fitted(image: Image, eyes: Eyes, visual_tokens: int) -> Image:
    """The picture as the model sees it with at most `visual_tokens`: both sides multiples of `eyes.side`.

    Bicubic, as Qwen trains. The same picture always gives the same bytes, so that engines know a prompt again.
    """
    size = fitted_size(image.width, image.height, eyes, visual_tokens)
    return image if size == (image.width, image.height) else _resized(image, size)


@lru_cache(maxsize=16)  # every turn of a conversation sends its pictures again
def _resized(image: Image, size: tuple[int, int]) -> Image:
    with PIL.Image.open(io.BytesIO(image.png), formats=("PNG",)) as picture:
        resized = picture.convert("RGB").resize(size, PIL.Image.Resampling.BICUBIC)
    return Image(_png(resized), *size, uploaded=image.size_as_uploaded)


def _decoded(data: bytes) -> Image:
    """Raises `_Unfit`, MemoryError."""
    if not data:
        raise _Unfit("is empty: it has 0 bytes.", "Choose the file again, or another one.")
    if len(data) > MAX_BYTES:
        raise _Unfit(
            f"has more than {MAX_BYTES // 2**20} MiB.", "Make it smaller or save it as JPEG, and add it again."
        )
    kind = format_of(data)
    if kind is None:
        known = unreadable_format_of(data)
        fault = f"is {known}, which cannot be read here." if known else "is not a picture."
        raise _Unfit(fault, _SAVE_AGAIN if known else f"Add a picture as {READABLE}.")
    with _decoding, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return _read(data, kind)
        except (_Unfit, MemoryError):
            raise
        except PIL.Image.DecompressionBombError as exc:
            raise _too_many_pixels() from exc
        except Exception as exc:  # Pillow lets almost any exception out of a damaged file
            raise _Unfit(
                "is damaged: it cannot be read to its end.", "Save or send the picture anew, and add that."
            ) from exc


def _read(data: bytes, kind: Format) -> Image:
    if kind == "WEBP":
        _check_size(*webp_size(data))
    plain = bare(data, kind)
    with PIL.Image.open(io.BytesIO(plain), formats=(kind,)) as header:
        _check_size(*header.size)
        header.verify()
    if kind == "JPEG":
        _check_jpeg(plain)
    with PIL.Image.open(io.BytesIO(plain), formats=(kind,)) as picture:
        width, height = picture.size
        stored = _stored_size(width, height)
        picture.draft(picture.mode, stored)  # JPEG only: decodes no more than is needed
        picture.load()
        orientation = _orientation(picture)
        seen = _on_white(picture)
    if seen.size != stored:
        seen = seen.resize(stored, PIL.Image.Resampling.LANCZOS, reducing_gap=3.0)
    if orientation in _TURNS:
        seen = seen.transpose(_TURNS[orientation])
    uploaded = (height, width) if orientation in _SWAPPING else (width, height)
    return Image(_png(seen), *seen.size, uploaded=uploaded)


def _check_jpeg(data: bytes) -> None:
    """Raises `Damaged` where libjpeg met what it could only guess at.

    It paints that grey or garbled and goes on, and Pillow does not tell. A flipped bit that makes another valid file
    stays unseen: JPEG has no checksums.
    """
    try:
        simplejpeg.decode_jpeg(data, "GRAY", min_height=1, min_width=1, min_factor=8)
    except ValueError as exc:
        if _GUESSED.match(str(exc)):
            raise Damaged from exc


def _check_size(width: int, height: int) -> None:
    """Raises `_Unfit` for a size in pixels that is out of bounds."""
    longer, shorter = max(width, height), min(width, height)
    if shorter < MIN_SIDE:
        raise _Unfit(f"is smaller than {MIN_SIDE} × {MIN_SIDE} pixels.", "Add a larger picture.")
    if longer > MAX_SIDE:
        raise _Unfit(f"is longer than {MAX_SIDE:,} pixels on one side.", _SMALLER)
    if width * height > MAX_PIXELS:
        raise _too_many_pixels()
    if longer > MAX_RATIO * shorter:
        raise _Unfit(
            f"is more than {MAX_RATIO} times as long as it is wide.", "Cut it into several pictures, and add those."
        )


def _too_many_pixels() -> _Unfit:
    return _Unfit(f"has more than {MAX_PIXELS // 10**6} million pixels.", _SMALLER)


def _stored_size(width: int, height: int) -> tuple[int, int]:
    scale = min(1.0, math.sqrt(STORED_PIXELS / (width * height)))
    return max(1, math.floor(width * scale)), max(1, math.floor(height * scale))


def _orientation(picture: PIL.Image.Image) -> int:
    """EXIF's number, 1 where there is none. XMP is not asked, as no browser asks it."""
    exif = PIL.Image.Exif()
    try:
        exif.load(picture.info.get("exif", b""))
        return int(exif.get(_ORIENTATION, 1))
    except Exception:  # as above, and a picture is shown whatever its notes hold
        return 1


def _on_white(picture: PIL.Image.Image) -> PIL.Image.Image:
    """8-bit RGB with nothing see-through, and with none of the file's notes."""
    if picture.mode.startswith("I"):  # 16 bits of grey; convert() would cut off what is above 255
        grey = picture.convert("I").point(lambda value: value * (255 / 65_535) + 0.5)
        return grey.convert("L").convert("RGB")
    if picture.has_transparency_data:
        layered = picture.convert("RGBA")
        flat = PIL.Image.new("RGB", picture.size, "white")
        flat.paste(layered, mask=layered.getchannel("A"))
        return flat
    return picture.convert("RGB")


def _png(picture: PIL.Image.Image) -> bytes:
    """Quickly packed, without metadata."""
    picture.info = {}
    file = io.BytesIO()
    picture.save(file, "PNG", compress_level=1)
    return file.getvalue()


def _called(name: str) -> str:
    """How a sentence about the file begins: never with a path, and short."""
    last = name.replace("\\", "/").rstrip("/").rpartition("/")[2]
    if last in ("", "picture"):
        return "The picture"
    return f"The file {last if len(last) <= 60 else last[:59] + '…'!r}"
