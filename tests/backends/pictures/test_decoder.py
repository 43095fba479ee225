"""What comes in as a picture, and what the model is shown of it. Most files here are made by Pillow or by hand."""

from __future__ import annotations

import ast
import contextlib
import importlib.util
import io
import math
import resource
import struct
import threading
import tracemalloc
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import PIL.Image
import PIL.ImageChops
import PIL.PngImagePlugin
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from backends.catalog.eyes import Eyes
from backends.core.errors import InvalidRequest, OutOfMemory
from backends.core.types import Image
from backends.pictures import decoder as pictures
from backends.pictures.decoder import MAX_BYTES, STORED_PIXELS, decode, fitted, fitted_size, visual_tokens_of
from backends.pictures.formats import is_animated
from tests.patience import grows_in_proportion

EYES = Eyes(side=32, fewest=16, default=1280, most=2560, boxes="thousandths")
FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP")
RED, GREEN, BLUE, WHITE, BLACK = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255), (0, 0, 0)
Colour = tuple[int, int, int]


def saved(picture: PIL.Image.Image, kind: str, **how: object) -> bytes:
    file = io.BytesIO()
    picture.save(file, kind, **how)
    return file.getvalue()


def landscape(width: int = 96, height: int = 64, seed: int = 1) -> PIL.Image.Image:
    """Something with slopes and grain, like a photograph."""
    shape = PIL.Image.radial_gradient("L").resize((width, height))
    grain = PIL.Image.linear_gradient("L").rotate(seed * 37).resize((width, height))
    return PIL.Image.merge("RGB", (shape, grain, PIL.Image.blend(shape, grain, 0.5)))


def seen(image: Image) -> PIL.Image.Image:
    with PIL.Image.open(io.BytesIO(image.png), formats=("PNG",)) as picture:
        picture.load()
    assert picture.mode == "RGB"
    assert picture.size == (image.width, image.height)
    return picture


def shown(data: bytes) -> list[Colour]:
    return list(seen(decode(data)).get_flattened_data())  # type: ignore[arg-type]


def refusal(data: bytes, name: str = "picture") -> InvalidRequest:
    with pytest.raises(InvalidRequest) as caught:
        decode(data, name)
    assert caught.value.hint
    return caught.value


def chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def png(width: int, height: int, depth: int, colours: int, rows: list[bytes], *extra: bytes) -> bytes:
    """A PNG file made by hand: what Pillow itself does not write. `extra` are chunks before the pixels."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colours, 0, 0, 0))
    pixels = chunk(b"IDAT", zlib.compress(b"".join(b"\0" + row for row in rows)))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(extra) + pixels + chunk(b"IEND", b"")


# --- properties ----------------------------------------------------------------------------------

sides = st.integers(1, 20_000)
eyes = st.builds(
    lambda side, fewest, more: Eyes(
        side=side, fewest=fewest, default=fewest + more, most=fewest + more, boxes="thousandths"
    ),
    st.sampled_from([28, 32]),
    st.integers(1, 256),
    st.integers(0, 4096),
)


def smart_resize() -> Callable[..., tuple[int, int]]:
    """Qwen's own, read out of its source: importing the module would import torch."""
    package = importlib.util.find_spec("qwen_vl_utils")
    if package is None or not package.submodule_search_locations:
        pytest.skip("qwen-vl-utils is not installed")
    source = Path(package.submodule_search_locations[0], "vision_process.py").read_text("utf-8")
    wanted = ("smart_resize", "round_by_factor", "ceil_by_factor", "floor_by_factor")
    body = [node for node in ast.parse(source).body if isinstance(node, ast.FunctionDef) and node.name in wanted]
    names: dict[str, object] = {"math": math, "MAX_RATIO": 200}
    future = ast.parse("from __future__ import annotations").body
    exec(compile(ast.Module([*future, *body], []), "vision_process", "exec"), names)
    return names["smart_resize"]  # type: ignore[return-value]


QWENS = smart_resize() if importlib.util.find_spec("qwen_vl_utils") else None


@pytest.mark.skipif(QWENS is None, reason="qwen-vl-utils is not installed")
@given(sides, sides, eyes, st.integers(1, 5000))
@settings(max_examples=500)
def test_the_size_shown_is_qwens_own_wherever_that_keeps_its_limit(
    width: int, height: int, eyes: Eyes, limit: int
) -> None:
    assert QWENS is not None
    limit = min(max(limit, eyes.fewest), eyes.most)
    if max(width, height) > 200 * min(width, height):
        return
    high, wide = QWENS(height, width, eyes.side, eyes.fewest * eyes.side**2, limit * eyes.side**2)
    if 0 < high * wide <= limit * eyes.side**2:
        assert fitted_size(width, height, eyes, limit) == (wide, high)


@given(sides, sides, eyes, st.integers(-1, 5000))
@example(2, 200, EYES, 16)
@example(20_000, 200, EYES, 4)
def test_the_size_shown_is_whole_squares_and_never_over_the_limit(
    width: int, height: int, eyes: Eyes, limit: int
) -> None:
    wide, high = fitted_size(width, height, eyes, limit)
    assert wide % eyes.side == high % eyes.side == 0
    assert min(wide, high) > 0
    cost = visual_tokens_of(width, height, eyes, limit)
    assert cost == wide * high // eyes.side**2
    assert cost <= max(1, min(limit, eyes.most))
    if max(width, height) <= 2 * min(width, height) and limit >= 4 * eyes.fewest and eyes.most >= 4 * eyes.fewest >= 16:
        assert cost >= eyes.fewest


@given(
    st.integers(1, 40), st.integers(1, 40), st.sampled_from(["PNG", "BMP", "WEBP"]), st.randoms(use_true_random=False)
)
@settings(max_examples=40)
def test_a_plain_picture_comes_through_pixel_by_pixel(width: int, height: int, kind: str, random: object) -> None:
    width, height = max(2, width), max(2, height)
    picture = PIL.Image.frombytes("RGB", (width, height), random.randbytes(3 * width * height))  # type: ignore[attr-defined]
    image = decode(saved(picture, kind, **({"lossless": True} if kind == "WEBP" else {})))
    assert seen(image).tobytes() == picture.tobytes()
    assert image.size_as_uploaded == (width, height)


@given(st.sampled_from(FORMATS), st.data())
@settings(max_examples=150)
def test_whatever_happens_to_a_file_it_is_read_or_refused(kind: str, data: st.DataObject) -> None:
    file = bytearray(FILES[kind])
    for _ in range(data.draw(st.integers(0, 4))):
        file[data.draw(st.integers(0, len(file) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(InvalidRequest):
        seen(decode(bytes(file[: data.draw(st.integers(0, len(file)))])))


FILES = {kind: saved(landscape(), kind) for kind in FORMATS} | {
    "progressive JPEG": saved(landscape(), "JPEG", progressive=True, quality=90),
    "JPEG with restarts": saved(landscape(), "JPEG", restart_marker_blocks=1, quality=90),
}


# --- refused -------------------------------------------------------------------------------------


def test_an_empty_file_is_refused() -> None:
    assert "0 bytes" in refusal(b"").message


def test_a_file_over_the_limit_is_refused_before_it_is_looked_at() -> None:
    assert "20 MiB" in refusal(b"x" * (MAX_BYTES + 1)).message


@pytest.mark.parametrize(
    "data",
    [b"hello", b"BMW is a car, and so on", b"<!doctype html><html><svg></svg>", b"\0" * 99, b"RIFF\0\0\0\0WAVEfmt "],
)
def test_what_is_no_picture_is_called_so_whatever_its_name(data: bytes) -> None:
    fault = refusal(data, "cat.png")
    assert fault.message == "The file 'cat.png' is not a picture."
    assert "PNG, JPEG, WebP, GIF" in fault.hint


FOREIGN = {
    "SVG": b"\xef\xbb\xbf<?xml version='1.0'?>\n<!-- x -->\n<!DOCTYPE svg>\n<svg xmlns='http://www.w3.org/2000/svg'/>",
    "PostScript": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
    "Photoshop": b"8BPS\0\1\0\0\0\0\0\0\0\3\0\0\0\2\0\0\0\2\0\x08\0\3",
    "FITS": b"SIMPLE  =                    T / file conforms to FITS standard".ljust(2880),
    "HEIC": b"\0\0\0\x18ftypheic\0\0\0\0mif1heic",
    "AVIF": b"\0\0\0\x1cftypavif\0\0\0\0avifmif1",
    "JPEG 2000": b"\0\0\0\x0cjP  \r\n\x87\n\0\0\0\x14ftypjp2 ",
    "JPEG XL": b"\xff\x0a\0\0",
    "PDF": b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n",
    "TIFF": saved(PIL.Image.new("RGB", (4, 4)), "TIFF"),
    "icon": saved(PIL.Image.new("RGB", (16, 16)), "ICO"),
    "run-length coded BMP": b"BM" + b"\0" * 12 + struct.pack("<IiiHHI", 40, 4, 4, 1, 8, 1) + b"\0" * 40,
}


@pytest.mark.parametrize("kind", FOREIGN)
@pytest.mark.parametrize("name", ["x.png", "x.jpg"])
def test_other_formats_are_known_by_their_content_and_the_sentence_says_which_work(kind: str, name: str) -> None:
    fault = refusal(FOREIGN[kind], name)
    assert kind in fault.message
    assert "PNG, JPEG, WebP, GIF" in fault.hint


@pytest.mark.parametrize("filler", [b" ", b"<?", b"<!-- ", b"<!-- -->", b"<!DOCTYPE", b"\n<"])
def test_svg_is_told_in_proportion_whatever_stands_before_it(filler: bytes) -> None:
    def told(times: int) -> None:
        assert refusal(filler * times).message == "The picture is not a picture."

    grows_in_proportion(told, 50_000)


def resident() -> int:
    """Most memory that this process has held so far, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def claiming(kind: str, width: int, height: int) -> bytes:
    """A small file whose header says that it is as large as this."""
    if kind == "PNG":
        return png(width, height, 8, 2, [b"\0" * 9])
    data = bytearray(FILES[kind])
    if kind == "JPEG":
        struct.pack_into(">HH", data, data.index(b"\xff\xc0") + 5, height, width)
    elif kind == "GIF":
        struct.pack_into("<HH", data, 6, width, height)
        struct.pack_into("<HH", data, data.index(b",", 13 + 768) + 5, width, height)
    elif kind == "BMP":
        struct.pack_into("<ii", data, 18, width, height)
    else:
        struct.pack_into("<HH", data, 26, width & 0x3FFF, height & 0x3FFF)
    return bytes(data)


OUT_OF_BOUNDS = {
    (16_000, 16_000): "50 million pixels",
    (50_000, 50_000): "50 million pixels",
    (9_000, 6_000): "50 million pixels",
    (30_000, 400): "20,000 pixels",
    (1, 9): "smaller than 2",
    (3_000, 29): "100 times",
}


@pytest.mark.parametrize(
    ("kind", "size"),
    [(kind, size) for kind in FORMATS for size in OUT_OF_BOUNDS if kind != "WEBP" or max(size) < 2**14],
)
def test_a_size_out_of_bounds_is_refused_from_the_header_and_costs_no_memory(kind: str, size: tuple[int, int]) -> None:
    data = claiming(kind, *size)
    tracemalloc.start()
    before = resident()
    try:
        fault = refusal(data)
        taken = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert OUT_OF_BOUNDS[size] in fault.message
    assert taken < 4 * 2**20
    assert resident() - before < 16 * 2**20


def test_a_gif_whose_picture_is_larger_than_its_canvas_is_refused() -> None:
    data = bytearray(FILES["GIF"])
    at = data.index(b",", 13 + 768)
    struct.pack_into("<HH", data, at + 5, 60_000, 60_000)
    assert "million pixels" in refusal(bytes(data)).message


def test_a_webp_that_says_two_sizes_is_refused() -> None:
    extended = b"VP8X" + struct.pack("<I", 10) + b"\0" * 4 + (15_999).to_bytes(3, "little") * 2
    inner = extended + FILES["WEBP"][12:]
    assert "million" in refusal(b"RIFF" + struct.pack("<I", 4 + len(inner)) + b"WEBP" + inner).message


DAMAGED = "The picture is damaged: it cannot be read to its end."


@pytest.mark.parametrize("kind", FILES)
def test_a_truncated_file_is_damaged_wherever_it_ends(kind: str) -> None:
    data = FILES[kind]
    whole = len(data) - (2 if kind == "GIF" else 1)  # a GIF without its last byte lacks nothing
    for end in {*range(60, whole, max(1, whole // 40)), whole - 1}:
        assert refusal(data[:end]).message == DAMAGED, end


@pytest.mark.parametrize("kind", ["JPEG", "progressive JPEG", "JPEG with restarts"])
@pytest.mark.parametrize("marker", [0x01, 0xC4, 0xD0, 0xD5, 0xD8, 0xD9, 0xDA, 0xDB, 0xE0, 0xF7, 0xFE])
@pytest.mark.parametrize("where", [0.1, 0.5, 0.9])
def test_a_stray_marker_that_would_leave_a_picture_half_grey_is_damage(kind: str, marker: int, where: float) -> None:
    data = bytearray(FILES[kind])
    at = data.index(b"\xff\xda") + 14
    at += int((len(data) - at) * where)
    while 0xFF in data[at - 1 : at + 3]:
        at += 1
    data[at : at + 2] = bytes([0xFF, marker])
    assert refusal(bytes(data)).message == DAMAGED


@pytest.mark.parametrize("kind", ["JPEG", "progressive JPEG", "JPEG with restarts"])
def test_a_flipped_bit_that_pillow_would_show_garbled_is_damage(kind: str) -> None:
    whole = FILES[kind]
    data = bytearray(whole)
    data[whole.index(b"\xff\xda") + 16] ^= 1
    with PIL.Image.open(io.BytesIO(data)) as garbled, PIL.Image.open(io.BytesIO(whole)) as meant:
        assert garbled.tobytes() != meant.tobytes()
    assert refusal(bytes(data)).message == DAMAGED


def test_padding_between_a_jpegs_headers_is_no_damage() -> None:
    whole = FILES["JPEG"]
    at = whole.index(b"\xff\xdb")
    assert seen(decode(whole[:at] + bytes(3) + whole[at:])).tobytes() == seen(decode(whole)).tobytes()


@pytest.mark.parametrize("where", [0.2, 0.5, 0.8])
@pytest.mark.parametrize("bit", range(8))
def test_any_flipped_bit_in_a_png_is_damage(where: float, bit: int) -> None:
    data = bytearray(FILES["PNG"])
    data[int(len(data) * where)] ^= 1 << bit
    assert refusal(bytes(data)).message == DAMAGED


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What a decoder is given, by which all goes that is not refused before."""
    given: list[str] = []
    decode_jpeg, opened = pictures.simplejpeg.decode_jpeg, PIL.Image.open

    def told(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        return lambda *args, **kwargs: (given.append(name), function(*args, **kwargs))[1]

    monkeypatch.setattr(pictures.simplejpeg, "decode_jpeg", told("libjpeg", decode_jpeg))
    monkeypatch.setattr(PIL.Image, "open", told("Pillow", opened))
    return given


def test_what_is_decoded_is_told_here(decoded: list[str]) -> None:
    decode(FILES["progressive JPEG"])
    assert set(decoded) == {"libjpeg", "Pillow"}


def test_thousands_of_scans_are_refused_and_not_walked(decoded: list[str]) -> None:
    data = FILES["progressive JPEG"]
    scan = data[data.rindex(b"\xff\xda") : -2]
    assert refusal(data[:-2] + scan * 20_000 + data[-2:]).message == DAMAGED
    assert decoded == []


@pytest.mark.parametrize("filler", [b"\xff", b"\xff\xff\0", b"\xff\xfe\0\2", b"\xff\xd0", b"\0"])
def test_a_long_jpeg_of_nothing_is_refused_in_proportion_and_not_decoded(filler: bytes, decoded: list[str]) -> None:
    head = FILES["JPEG"][: FILES["JPEG"].index(b"\xff\xda") + 14]

    def refused(size: int) -> None:
        assert refusal(head + filler * (size // len(filler))).message == DAMAGED

    grows_in_proportion(refused, 500_000)
    assert decoded == []


def test_where_memory_runs_out_the_sentence_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> Image:
        raise MemoryError

    monkeypatch.setattr(pictures, "_read", full)
    with pytest.raises(OutOfMemory, match="takes more memory"):
        decode(FILES["PNG"])


@pytest.mark.parametrize(
    ("name", "called"),
    [
        ("cat.png", "The file 'cat.png'"),
        ("/home/me/secret/cat.png", "The file 'cat.png'"),
        ("C:\\Users\\me\\cat.png", "The file 'cat.png'"),
        ("../../etc/", "The file 'etc'"),
        ("", "The picture"),
        ("a\nb\u202e.png", "The file 'a\\nb\\u202e.png'"),
        ("x" * 500, "The file '" + "x" * 59 + "…'"),
    ],
)
def test_a_file_is_called_by_its_name_without_its_path(name: str, called: str) -> None:
    assert refusal(b"", name).message == f"{called} is empty: it has 0 bytes."


# --- what the model sees is what a viewer shows --------------------------------------------------

# Orientation: how an upright picture of 3 x 2 lies in the file, as a letter for each colour.
LYING = {
    1: "RGB/WKR",
    2: "BGR/RKW",
    3: "RKW/BGR",
    4: "WKR/RGB",
    5: "RW/GK/BR",
    6: "BR/GK/RW",
    7: "RB/KG/WR",
    8: "WR/KG/RB",
}
COLOURS = {"R": RED, "G": GREEN, "B": BLUE, "W": WHITE, "K": BLACK}


def drawn(letters: str, scale: int = 1) -> PIL.Image.Image:
    rows = letters.split("/")
    picture = PIL.Image.new("RGB", (len(rows[0]), len(rows)))
    picture.putdata([COLOURS[letter] for letter in "".join(rows)])
    return picture.resize((picture.width * scale, picture.height * scale), PIL.Image.Resampling.NEAREST)


@pytest.mark.parametrize("orientation", LYING)
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_a_picture_is_turned_upright(orientation: int, kind: str) -> None:
    exif = PIL.Image.Exif()
    exif[0x0112] = orientation
    how = {"PNG": {}, "JPEG": {"quality": 100, "subsampling": 0}, "WEBP": {"lossless": True}}[kind]
    # orientation 6 means that the file's first row is the upright picture's right side, and so on
    image = decode(saved(drawn(LYING[orientation], 16), kind, exif=exif, **how))
    upright = drawn("RGB/WKR", 16)
    assert image.size_as_uploaded == (48, 32)
    for wanted, got in zip(upright.get_flattened_data(), seen(image).get_flattened_data(), strict=True):
        assert all(abs(a - b) <= 6 for a, b in zip(wanted, got, strict=True))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "exif", [b"Exif\0\0nonsense", b"Exif\0\0II*\0\xff\xff\xff\xff", b"Exif\0\0MM\0*\0\0\0\x08\xff\xff"]
)
def test_broken_notes_do_not_spoil_a_picture(exif: bytes) -> None:
    assert decode(saved(landscape(), "JPEG", exif=exif)).size_as_uploaded == (96, 64)


def test_sixteen_bits_are_scaled_and_not_cut() -> None:
    grey = png(4, 2, 16, 0, [struct.pack(">4H", 0, 257, 32_768, 65_535)] * 2)
    assert shown(grey)[:4] == [(0,) * 3, (1,) * 3, (128,) * 3, (255,) * 3]
    colour = png(2, 2, 16, 2, [struct.pack(">6H", 65_535, 0, 32_768, 0, 65_535, 257)] * 2)
    assert shown(colour)[:2] == [(255, 0, 128), (0, 255, 1)]
    with_alpha = png(2, 2, 16, 6, [struct.pack(">8H", 0, 0, 0, 0, 65_535, 0, 0, 65_535)] * 2)
    assert shown(with_alpha)[:2] == [WHITE, RED]
    grey_alpha = png(2, 2, 16, 4, [struct.pack(">4H", 0, 0, 0, 65_535)] * 2)
    assert shown(grey_alpha)[:2] == [WHITE, BLACK]


def test_what_is_see_through_is_white() -> None:
    layered = PIL.Image.new("RGBA", (2, 2), (255, 0, 0, 255))
    layered.putpixel((0, 0), (0, 0, 0, 0))
    layered.putpixel((1, 0), (0, 0, 0, 128))
    for data in (saved(layered, "PNG"), saved(layered, "WEBP", lossless=True, exact=True)):
        assert shown(data) == [WHITE, (127,) * 3, RED, RED]


def test_a_palette_with_alpha_is_shown_on_white() -> None:
    palette = chunk(b"PLTE", bytes([*BLACK, *RED, *BLUE]))
    data = png(3, 2, 8, 3, [b"\0\1\2"] * 2, palette, chunk(b"tRNS", bytes([0, 128, 255])))
    assert shown(data)[:3] == [WHITE, (255, 127, 127), BLUE]


@pytest.mark.parametrize(
    ("colours", "row", "see_through"), [(2, bytes([*BLACK, *RED]), bytes(6)), (0, b"\0\xff", b"\0\0")]
)
def test_one_colour_that_stands_for_nothing_is_white(colours: int, row: bytes, see_through: bytes) -> None:
    data = png(2, 2, 8, colours, [row] * 2, chunk(b"tRNS", see_through))
    assert shown(data)[:2] == [WHITE, RED if colours == 2 else WHITE]


def test_cmyk_has_the_colours_of_the_print() -> None:
    inks = {(255, 0, 0, 0): (0, 255, 255), (0, 255, 255, 0): RED, (0, 0, 0, 255): BLACK, (0, 0, 0, 0): WHITE}
    for ink, colour in inks.items():
        data = saved(PIL.Image.new("CMYK", (16, 16), ink), "JPEG", quality=95)
        assert all(abs(a - b) <= 3 for a, b in zip(shown(data)[0], colour, strict=True))


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP"])
def test_of_an_animation_the_first_picture_counts(kind: str) -> None:
    frames = [PIL.Image.new("RGB", (8, 8), colour) for colour in (RED, GREEN, BLUE)]
    data = saved(
        frames[0], kind, save_all=True, append_images=frames[1:], **({"lossless": True} if kind == "WEBP" else {})
    )
    assert set(shown(data)) == {RED}


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP"])
@pytest.mark.parametrize("count", [1, 2, 3])
def test_an_animation_is_told_from_a_still_picture_wherever_it_is_cut(kind: str, count: int) -> None:
    frames = [PIL.Image.new("RGB", (8, 8), colour) for colour in (RED, GREEN, BLUE)[:count]]
    data = saved(frames[0], kind, save_all=True, append_images=frames[1:])
    assert is_animated(data) == (count > 1)
    assert is_animated(data + b"and what follows it") == (count > 1)
    for end in range(len(data)):
        assert not is_animated(data[:end]) or count > 1


@given(st.binary(max_size=80))
def test_whether_something_is_animated_can_be_asked_of_anything(rest: bytes) -> None:
    for begin in (b"GIF89a", b"\x89PNG\r\n\x1a\n", b"RIFF\0\0\0\0WEBP", b"RIFF\0\0\0\0WEBPVP8X", b""):
        assert is_animated(begin + rest) in (True, False)


@pytest.mark.parametrize("kind", FORMATS)
def test_a_still_picture_of_any_kind_is_not_animated(kind: str) -> None:
    assert not is_animated(FILES[kind])


def test_what_a_phone_appends_to_a_jpeg_does_no_harm() -> None:
    for appended in (b"\0" * 100, FILES["JPEG"], b"\0\0\0\x18ftypmp42" + bytes(range(256)), b"SEFT"):
        assert decode(FILES["JPEG"] + appended) == decode(FILES["JPEG"])
    both = saved(landscape(), "MPO", save_all=True, append_images=[landscape(seed=2)])
    assert decode(both).size_as_uploaded == (96, 64)


def test_text_profiles_and_broken_animation_in_a_png_are_not_read() -> None:
    bomb = zlib.compress(b"\0" * 200_000_000, 9)
    extra = [
        chunk(b"zTXt", b"Comment\0\0" + bomb),
        chunk(b"iTXt", b"Comment\0\1\0\0\0" + bomb),
        chunk(b"iCCP", b"p\0\0" + bomb),
        chunk(b"tEXt", b"Comment\0" + b"x" * 2_000_000),
        chunk(b"acTL", b"\0" * 8),
    ]
    before = resident()
    assert set(shown(png(2, 2, 8, 2, [bytes(RED * 2)] * 2, *extra))) == {RED}
    assert resident() - before < 64 * 2**20


def test_a_long_comment_in_a_gif_is_passed_over_in_proportion() -> None:
    data, still = FILES["GIF"], decode(FILES["GIF"])
    at = 13 + (3 << (data[10] & 7) + 1)

    def passed_over(blocks: int) -> None:
        comment = b"!\xfe" + (b"\xff" + b"x" * 255) * blocks + b"\0"
        assert decode(data[:at] + comment + data[at:]) == still

    grows_in_proportion(passed_over, 10_000)


# --- what is kept --------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", FORMATS)
def test_nothing_of_the_file_but_its_pixels_is_kept(kind: str) -> None:
    exif = PIL.Image.Exif()
    exif[0x010E] = "a secret"
    notes = PIL.PngImagePlugin.PngInfo()
    notes.add_text("place", "a secret")
    how = {
        "PNG": {"pnginfo": notes, "exif": exif},
        "JPEG": {"exif": exif, "comment": b"a secret"},
        "WEBP": {"exif": exif},
    }
    image = decode(saved(landscape(), kind, dpi=(72, 72), icc_profile=b"a secret", **how.get(kind, {})))
    names, position = [], 8
    while position < len(image.png):
        length, name = struct.unpack_from(">I4s", image.png, position)
        names.append(name)
        position += 12 + length
    assert set(names) == {b"IHDR", b"IDAT", b"IEND"}
    assert b"secret" not in image.png


@pytest.mark.parametrize(("kind", "size"), [("JPEG", (3200, 2400)), ("PNG", (2400, 1500)), ("PNG", (15_000, 200))])
def test_a_large_picture_is_kept_smaller_and_remembers_its_size(kind: str, size: tuple[int, int]) -> None:
    image = decode(saved(landscape(*size), kind))
    assert image.size_as_uploaded == size
    assert 0.97 * STORED_PIXELS < image.width * image.height <= STORED_PIXELS
    assert image.width / image.height == pytest.approx(size[0] / size[1], rel=0.01)
    small = landscape(*size).resize((image.width, image.height), PIL.Image.Resampling.LANCZOS)
    worst = max(high for _, high in PIL.ImageChops.difference(small, seen(image)).getextrema())  # type: ignore[misc]
    assert worst < 24


def test_a_picture_made_by_hand_was_uploaded_as_it_is() -> None:
    assert Image(b"", 3, 2).size_as_uploaded == (3, 2)


def test_several_at_once_do_not_disturb_each_other() -> None:
    results: list[Image] = []
    threads = [threading.Thread(target=lambda: results.append(decode(FILES["JPEG"]))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [decode(FILES["JPEG"])] * 8


# --- what the model is shown ---------------------------------------------------------------------


@pytest.mark.parametrize(("size", "limit"), [((96, 64), 1280), ((600, 401), 64), ((2, 200), 1280), ((64, 640), 2560)])
def test_a_picture_is_fitted_to_whole_squares_within_the_limit(size: tuple[int, int], limit: int) -> None:
    image = decode(saved(landscape(*size), "PNG"))
    fit = fitted(image, EYES, limit)
    assert (fit.width, fit.height) == fitted_size(*size, EYES, limit)
    assert fit.size_as_uploaded == size
    assert seen(fit).size == (fit.width, fit.height)
    assert fitted(fit, EYES, limit) is fit


def test_the_same_picture_always_gives_the_same_bytes() -> None:
    once = fitted(decode(FILES["JPEG"]), EYES, 64)
    pictures._resized.cache_clear()
    again = fitted(decode(FILES["JPEG"]), EYES, 64)
    assert once == again
    assert once is not again
    assert fitted(decode(FILES["JPEG"]), EYES, 64) is again
