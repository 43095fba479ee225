"""Files sent as pictures and are none, each with the words of its refusal; and pictures out of the ordinary."""

from __future__ import annotations

from typing import Any

import PIL.Image

from tests.drawn import bomb, drawn, file_of


def halves(mode: str, left: Any, right: Any, size: tuple[int, int] = (64, 96)) -> PIL.Image.Image:
    picture = PIL.Image.new(mode, size, left)
    picture.paste(right, (size[0] // 2, 0, *size))
    return picture


def turned(orientation: int) -> bytes:
    exif = PIL.Image.Exif()
    exif[0x0112] = orientation
    return file_of(halves("RGB", "red", "blue", (320, 64)), "JPEG", exif=exif)


def palette() -> bytes:
    picture = halves("P", 0, 1)
    picture.putpalette([0, 0, 0, 0, 0, 255])
    return file_of(picture, transparency=0)


def flipped(data: bytes, position: int) -> bytes:
    """With the lowest bit of one byte turned over."""
    return data[:position] + bytes([data[position] ^ 1]) + data[position + 1 :]


RED, BLUE, BLACK, WHITE = (255, 0, 0), (0, 0, 255), (0, 0, 0), (255, 255, 255)
Colour = tuple[int, int, int]
UNUSUAL: dict[str, tuple[bytes, tuple[int, int], tuple[Colour, Colour]]] = {
    "CMYK": (file_of(halves("CMYK", (0, 255, 255, 0), (255, 255, 0, 0)), "JPEG"), (64, 96), (RED, BLUE)),
    "16 bit": (file_of(halves("I;16", 0, 65_535)), (64, 96), (BLACK, WHITE)),
    "palette": (palette(), (64, 96), (WHITE, BLUE)),
    "turned": (turned(6), (64, 320), (RED, BLUE)),
    "upside down": (turned(3), (320, 64), (BLUE, RED)),
    "GIF": (file_of(halves("RGB", "red", "blue"), "GIF"), (64, 96), (RED, BLUE)),
    "BMP": (file_of(halves("RGB", "red", "blue"), "BMP"), (64, 96), (RED, BLUE)),
    "WebP": (file_of(halves("RGB", "red", "blue"), "WEBP"), (64, 96), (RED, BLUE)),
}
"""The file, the width and height that a viewer shows, and the colours that it shows first and last."""

PHOTO = file_of(PIL.Image.radial_gradient("L").convert("RGB"), "JPEG")
HOSTILE: dict[str, tuple[bytes, str]] = {
    "nothing": (b"", "is empty"),
    "a text": (b"hello", "is not a picture"),
    "HTML": (b"<html><script>alert(1)</script>", "is not a picture"),
    "a bomb": (bomb(), "million pixels"),
    "half a JPEG": (PHOTO[: len(PHOTO) // 2], "is damaged"),
    "half a PNG": (drawn()[:-30], "is damaged"),
    "a flipped bit in a PNG": (flipped(drawn(), 45), "is damaged"),
    "a flipped bit in a JPEG": (flipped(PHOTO, PHOTO.index(b"\xff\xda") + 16), "is damaged"),
    "SVG": (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "SVG drawing, which cannot be read"),
    "EPS": (b"%!PS-Adobe-3.0 EPSF-3.0", "PostScript drawing, which cannot be read"),
    "PSD": (b"8BPS" + bytes(40), "Photoshop document, which cannot be read"),
    "FITS": (b"SIMPLE  =" + b" " * 80, "FITS picture, which cannot be read"),
    "HEIC": (b"\0\0\0\x18ftypheic" + bytes(40), "HEIC or AVIF picture, which cannot be read"),
    "JPEG 2000": (b"\0\0\0\x0cjP  \r\n\x87\n" + bytes(40), "JPEG 2000 picture, which cannot be read"),
    "PDF": (b"%PDF-1.7", "PDF document, which cannot be read"),
    "too many bytes": (drawn() + bytes(20 * 2**20), "has more than 20 MiB"),
}
