"""What a picture file is, told from its bytes before any decoder sees it; and the file reduced to what is to be seen.

Formats are known by their content, never by a name. The copies that `bare` makes hold one still picture and no text,
colour profile, animation or other picture. Knows nothing of Pillow.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Iterator
from itertools import islice
from typing import Literal

Format = Literal["PNG", "JPEG", "WEBP", "GIF", "BMP"]

_READABLE: dict[Format, re.Pattern[bytes]] = {
    "PNG": re.compile(rb"\x89PNG\r\n\x1a\n"),
    "JPEG": re.compile(rb"\xff\xd8\xff"),
    "WEBP": re.compile(rb"RIFF.{4}WEBP", re.DOTALL),
    "GIF": re.compile(rb"GIF8[79]a"),
    # The header's size, and that the pixels are not run-length coded: Pillow takes minutes for a large one of those.
    "BMP": re.compile(rb"BM.{12}(?:\x0c\0\0\0|[\x28\x34\x38\x40\x6c\x7c]\0\0\0.{12}[^\1\2])", re.DOTALL),
}
_UNREADABLE = {
    "an SVG drawing": re.compile(
        rb"(?:\xef\xbb\xbf)?(?:\s++|<\?[^>]*+>|<!--.*?-->|<!DOCTYPE[^>]*+>)*+<svg[\s>]", re.DOTALL
    ),
    "a HEIC or AVIF picture": re.compile(rb".{4}ftyp(?:hei[cxms]|hev[cxms]|mif1|msf1|avi[fs])", re.DOTALL),
    "a TIFF picture or a camera's raw file": re.compile(rb"II[*+]\0|MM\0[*+]"),
    "a JPEG 2000 picture": re.compile(rb"\0\0\0\x0cjP {2}\r\n\x87\n|\xff\x4f\xff\x51"),
    "a JPEG XL picture": re.compile(rb"\0\0\0\x0cJXL \r\n\x87\n|\xff\x0a"),
    "a Photoshop document": re.compile(rb"8BPS"),
    "a PostScript drawing": re.compile(rb"%!PS|\xc5\xd0\xd3\xc6"),
    "a PDF document": re.compile(rb"%PDF-"),
    "a FITS picture": re.compile(rb"SIMPLE {2}="),
    "an icon": re.compile(rb"\0\0[\1\2]\0"),
    "a run-length coded BMP picture": re.compile(rb"BM.{12}[\x28\x34\x38\x40\x6c\x7c]\0\0\0.{12}[\1\2]", re.DOTALL),
}
_HEAD = 4096
_PNG_KEPT = (b"IHDR", b"PLTE", b"tRNS", b"eXIf")
# More than any camera or program writes. Each scan is a walk over the whole picture: thousands would take hours.
_MOST_SCANS, _MOST_SEGMENTS = 100, 5_000

# JPEG's markers. A stuffed byte (0) and restarts are part of the pixels; segments are followed by their length.
_MARKER = re.compile(rb"\xff([\x01-\xcf\xd8-\xfe])", re.DOTALL)
_MARKER_HERE = re.compile(rb"\xff++([\x01-\xcf\xd8-\xfe])", re.DOTALL)
_SEGMENTS = frozenset({*range(0xC0, 0xC8), *range(0xC9, 0xD0), *range(0xDA, 0xF0), 0xFE})
_END, _SCAN = 0xD9, 0xDA


class Damaged(ValueError):
    """The file breaks the rules of its own format, most often because it ends too early."""


def format_of(data: bytes) -> Format | None:
    """The format, if it is one that the playground reads."""
    return next((name for name, signature in _READABLE.items() if signature.match(data)), None)


def unreadable_format_of(data: bytes) -> str | None:
    """'a PDF document': what it is, if it is a known kind of picture that the playground does not read."""
    head = data[:_HEAD]
    return next((name for name, signature in _UNREADABLE.items() if signature.match(head)), None)


def bare(data: bytes, kind: Format) -> bytes:
    """The file with nothing in it but its first picture and how that lies. Raises `Damaged`."""
    try:
        if kind == "PNG":
            return _bare_png(data)
        if kind == "GIF":
            return _bare_gif(data)
    except (struct.error, IndexError) as exc:
        raise Damaged from exc
    return _bare_jpeg(data) if kind == "JPEG" else data


def is_animated(data: bytes) -> bool:
    """Whether more than one frame is shown, of which `bare` keeps the first. Damaged files are not."""
    try:
        match format_of(data):
            case "GIF":
                return len(list(islice(_gif_frames(data), 2))) == 2
            case "PNG":
                return any(name == b"acTL" and content[:4] > b"\0\0\0\1" for name, content in _png_chunks(data))
            case "WEBP":
                return len(list(islice(_webp_frames(data), 2))) == 2
    except (struct.error, IndexError, Damaged):
        pass
    return False


def _gif_frames(data: bytes) -> Iterator[int]:
    """Where each picture of a GIF begins."""
    position = 13 + _palette_bytes(data[10])
    while (block := data[position]) in (0x21, 0x2C):
        if block == 0x2C:
            yield position
        pixels = position + 11 + _palette_bytes(data[position + 9])
        position = _after_sub_blocks(data, pixels if block == 0x2C else position + 2)


def _webp_frames(data: bytes) -> Iterator[int]:
    """Where each frame of an animated WebP begins."""
    position = 12
    while position < len(data):
        name, length = struct.unpack_from("<4sI", data, position)
        if name == b"ANMF":
            yield position
        position += 8 + length + (length & 1)


def webp_size(data: bytes) -> tuple[int, int]:
    """(width, height) in pixels from the header: Pillow would set the pixels' memory aside first. Raises `Damaged`."""
    if len(data) < 30:
        raise Damaged
    match data[12:16]:
        case b"VP8X":
            return 1 + int.from_bytes(data[24:27], "little"), 1 + int.from_bytes(data[27:30], "little")
        case b"VP8L":
            bits = int.from_bytes(data[21:25], "little")
            return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
        case b"VP8 ":
            width, height = struct.unpack_from("<HH", data, 26)
            return width & 0x3FFF, height & 0x3FFF
    raise Damaged


def _bare_png(data: bytes) -> bytes:
    """Keeps size, palette, transparency, orientation and pixels; every checksum is checked."""
    kept: dict[bytes, bytes] = {}
    pixels = []
    for name, content in _png_chunks(data):
        if name == b"IDAT":
            pixels.append(content)
        elif name in _PNG_KEPT:
            kept.setdefault(name, content)
    chunks = [*kept.items(), (b"IDAT", b"".join(pixels)), (b"IEND", b"")]
    return data[:8] + b"".join(
        struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))
        for name, content in chunks
    )


def _png_chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """(name, content) of every chunk up to the end marker, which has to be there."""
    position, name = 8, b""
    while name != b"IEND":
        length, name = struct.unpack_from(">I4s", data, position)
        end = position + 8 + length
        (checksum,) = struct.unpack_from(">I", data, end)
        if zlib.crc32(memoryview(data)[position + 4 : end]) != checksum:
            raise Damaged
        yield name, data[position + 8 : end]
        position = end + 4


def _bare_gif(data: bytes) -> bytes:
    """Keeps the header, the palettes, and the first picture with what says which of its colours is transparent."""
    position = 13 + _palette_bytes(data[10])
    header, control = data[:position], b""
    while (block := data[position]) == 0x21:
        end = _after_sub_blocks(data, position + 2)
        if data[position + 1] == 0xF9:
            control = data[position:end]
        position = end
    if block != 0x2C:
        raise Damaged
    pixels = position + 11 + _palette_bytes(data[position + 9])
    return header + control + data[position : _after_sub_blocks(data, pixels)] + b";"


def _palette_bytes(flags: int) -> int:
    return 3 << (flags & 7) + 1 if flags & 0x80 else 0


def _after_sub_blocks(data: bytes, position: int) -> int:
    """Where the run of length-prefixed blocks that begins at `position` has ended."""
    while length := data[position]:
        position += 1 + length
    return position + 1


def _bare_jpeg(data: bytes) -> bytes:
    """Cuts off what follows the picture, as phones append films and more pictures."""
    return data[: _end_of_jpeg(data)]


def _end_of_jpeg(data: bytes) -> int:
    """The position after the end marker that belongs to the first picture."""
    position, scans, in_scan = 2, 0, False
    for _ in range(_MOST_SEGMENTS):
        after_a_table = scans and not in_scan
        found = _MARKER_HERE.match(data, position) if after_a_table else _MARKER.search(data, position)
        if not found:
            break
        marker, position = found[1][0], found.end()
        if marker == _END and scans:
            return position
        length = int.from_bytes(data[position : position + 2], "big")
        in_scan = marker == _SCAN
        scans += in_scan
        components = int.from_bytes(data[position + 2 : position + 3], "big")
        if marker not in _SEGMENTS or scans > _MOST_SCANS or (in_scan and length != 6 + 2 * components):
            break
        position += length
    raise Damaged
