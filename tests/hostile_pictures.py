"""Files sent as pictures and are none, each with the words of its refusal; and pictures out of the ordinary."""

from __future__ import annotations

import PIL.Image

from tests.drawn import bomb, drawn, file_of


def turned(orientation: int) -> bytes:
    exif = PIL.Image.Exif()
    exif[0x0112] = orientation
    return file_of(PIL.Image.new("RGB", (320, 64)), "JPEG", exif=exif)


UNUSUAL: dict[str, tuple[bytes, tuple[int, int]]] = {
    "CMYK": (file_of(PIL.Image.new("CMYK", (64, 96)), "JPEG"), (64, 96)),
    "16 bit": (file_of(PIL.Image.new("I;16", (64, 96))), (64, 96)),
    "palette": (file_of(PIL.Image.new("P", (64, 96)), transparency=0), (64, 96)),
    "turned": (turned(6), (64, 320)),
    "GIF": (file_of(PIL.Image.new("RGB", (64, 96)), "GIF"), (64, 96)),
    "BMP": (file_of(PIL.Image.new("RGB", (64, 96)), "BMP"), (64, 96)),
    "WebP": (file_of(PIL.Image.new("RGB", (64, 96)), "WEBP"), (64, 96)),
}
"""The file, and the width and height that a viewer shows."""

PHOTO = file_of(PIL.Image.radial_gradient("L").convert("RGB"), "JPEG")
HOSTILE: dict[str, tuple[bytes, str]] = {
    "nothing": (b"", "is empty"),
    "a text": (b"hello", "is not a picture"),
    "HTML": (b"<html><script>alert(1)</script>", "is not a picture"),
    "a bomb": (bomb(), "million pixels"),
    "half a JPEG": (PHOTO[: len(PHOTO) // 2], "is damaged"),
    "half a PNG": (drawn()[:-30], "is damaged"),
    "a flipped bit": (drawn()[:45] + bytes([drawn()[45] ^ 1]) + drawn()[46:], "is damaged"),
    "SVG": (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "SVG drawing, which cannot be read"),
    "EPS": (b"%!PS-Adobe-3.0 EPSF-3.0", "PostScript drawing, which cannot be read"),
    "PSD": (b"8BPS" + bytes(40), "Photoshop document, which cannot be read"),
    "FITS": (b"SIMPLE  =" + b" " * 80, "FITS picture, which cannot be read"),
    "HEIC": (b"\0\0\0\x18ftypheic" + bytes(40), "HEIC or AVIF picture, which cannot be read"),
    "JPEG 2000": (b"\0\0\0\x0cjP  \r\n\x87\n" + bytes(40), "JPEG 2000 picture, which cannot be read"),
    "PDF": (b"%PDF-1.7", "PDF document, which cannot be read"),
    "too many bytes": (drawn() + bytes(20 * 2**20), "has more than 20 MiB"),
}
