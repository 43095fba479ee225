"""Draws the pictures that the tiny model learns from, and says what is on them.

Every picture comes from a `random.Random`, so the same seed draws the same picture. The pictures for measuring are
drawn by other code (`evaluation_pictures.py`): a model that has only learnt this file's habits is found out there.
"""

from __future__ import annotations

import colorsys
import math
import random
from dataclasses import dataclass
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont

SHAPES = ("circle", "square", "triangle", "star")
COLOURS = ("red", "yellow", "green", "blue", "purple", "black")
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
DIGITS = "0123456789"
UNMISTAKABLE = "ABCDEFGHJKLMNPQRSTUVWXYZ23456789"
"""For words that mix letters and digits: without O and 0, I and 1, which many fonts draw alike."""

Rgb = tuple[int, int, int]
Box = tuple[float, float, float, float]
"""x0, y0, x1, y1 in pixels."""

HUES = {"red": (-10, 9), "yellow": (47, 60), "green": (90, 150), "blue": (205, 235), "purple": (268, 298)}
"""Where a colour's hue may lie, in degrees. The gaps are shades that people name differently."""


@dataclass(frozen=True)
class Thing:
    """A shape on a picture, or a bar of a chart (`shape` 'bar'), with the box that just holds it."""

    shape: str
    colour: str
    box: Box

    @property
    def centre(self) -> tuple[float, float]:
        return (self.box[0] + self.box[2]) / 2, (self.box[1] + self.box[3]) / 2


@dataclass(frozen=True)
class Glyph:
    """A letter or digit of printed text, with its box."""

    char: str
    box: Box


@dataclass(frozen=True)
class Bar:
    label: str
    value: int


@dataclass(frozen=True)
class Scene:
    """A picture of `width` x `height` pixels (`pixels`: height x width x 3, bytes) and what is on it."""

    pixels: np.ndarray
    things: tuple[Thing, ...] = ()
    glyphs: tuple[Glyph, ...] = ()
    word: str = ""
    bars: tuple[Bar, ...] = ()

    @property
    def width(self) -> int:
        return int(self.pixels.shape[1])

    @property
    def height(self) -> int:
        return int(self.pixels.shape[0])


def hundredth(part: float) -> int:
    """Which hundredth of a side an edge is nearest to, 0 to 100."""
    return min(100, max(0, round(100 * part)))


def shade(draw: random.Random, colour: str) -> Rgb:
    """A shade that people would call by this name."""
    if colour == "black":
        level = draw.randint(0, 38)
        return (level, level, min(45, level + draw.randint(0, 6)))
    hue = draw.uniform(*HUES[colour]) / 360 % 1
    bright = draw.uniform(0.82, 1) if colour == "yellow" else draw.uniform(0.45 if colour == "green" else 0.55, 1)
    red, green, blue = colorsys.hsv_to_rgb(hue, draw.uniform(0.68, 1), bright)
    return (round(red * 255), round(green * 255), round(blue * 255))


def distance(one: Rgb, other: Rgb) -> float:
    """How far two colours lie apart, 0..1, weighted roughly as the eye does."""
    return math.sqrt(sum(w * (a - b) ** 2 for w, a, b in zip((0.3, 0.5, 0.2), one, other, strict=True))) / 255


def _plain(draw: random.Random) -> Rgb:
    """The colour of a background: light, grey or dark, and pale enough never to be one of ours."""
    bright = draw.choice((draw.uniform(0.8, 1), draw.uniform(0.8, 1), draw.uniform(0.4, 0.8), draw.uniform(0.0, 0.25)))
    red, green, blue = colorsys.hsv_to_rgb(draw.random(), draw.choice((0, draw.uniform(0, 0.25))), bright)
    return (round(red * 255), round(green * 255), round(blue * 255))


def _background(draw: random.Random, width: int, height: int) -> tuple[Image.Image, Rgb]:
    """A background and its middle colour: plain, shaded from one side to the other, speckled, blotched or striped."""
    colour = _plain(draw)
    kind = draw.choice(("plain", "plain", "gradient", "speckles", "blotches", "stripes"))
    if kind == "plain":
        return Image.new("RGB", (width, height), colour), colour
    if kind == "stripes":
        picture = Image.new("RGB", (width, height), colour)
        pen, step = ImageDraw.Draw(picture), draw.randint(6, 30)
        line = tuple(max(0, min(255, c + draw.choice((-18, 18)))) for c in colour)
        lean = draw.choice((0, height, -height))
        for x in range(-height, width + height, step):
            pen.line((x, 0, x + lean, height), fill=line, width=draw.randint(1, 2))
        return picture, colour
    noise = np.random.default_rng(draw.getrandbits(32))
    if kind == "gradient":
        field = np.linspace(-1, 1, width)[None, :] * draw.uniform(-1, 1) + np.linspace(-1, 1, height)[:, None]
        field = field[..., None] * noise.uniform(-30, 30, 3)
    elif kind == "speckles":
        field = noise.normal(0, draw.uniform(4, 16), (height, width, 3))
    else:
        small = noise.normal(0, draw.uniform(8, 20), (draw.randint(3, 8), draw.randint(3, 8), 3))
        blotches = [Image.fromarray(small[..., c].astype(np.float32)).resize((width, height), 3) for c in range(3)]
        field = np.stack([np.asarray(blotch) for blotch in blotches], -1)
    return Image.fromarray(np.clip(np.array(colour) + field, 0, 255).astype(np.uint8)), colour


def _backdrop(draw: random.Random, width: int, height: int, scale: int) -> tuple[Image.Image, Rgb]:
    """A background to draw on at a larger scale."""
    picture, colour = _background(draw, width, height)
    return picture.resize((width * scale, height * scale), Image.Resampling.NEAREST), colour


def _outline(draw: random.Random, shape: str, radius: float) -> list[tuple[float, float]]:
    """The corners of a shape around (0, 0), as it may be turned."""
    if shape == "square":
        turn = math.radians(45 + draw.choice((0, 0, draw.uniform(-12, 12))))
        return [
            (radius * math.cos(turn + k * math.pi / 2), radius * math.sin(turn + k * math.pi / 2)) for k in range(4)
        ]
    turn = math.radians(-90 + draw.choice((0, 0, draw.uniform(-60, 60))))
    if shape == "triangle":
        return [
            (radius * math.cos(turn + k * math.tau / 3), radius * math.sin(turn + k * math.tau / 3)) for k in range(3)
        ]
    inner = draw.uniform(0.38, 0.52)
    return [
        (length * math.cos(turn + k * math.pi / 5), length * math.sin(turn + k * math.pi / 5))
        for k, length in enumerate([radius, radius * inner] * 5)
    ]


def _put(pen: ImageDraw.ImageDraw, draw: random.Random, shape: str, at: tuple[float, float], radius: float, fill: Rgb,
         scale: int) -> Box:  # fmt: skip
    """Draws one shape at a scale and returns its box at scale 1."""
    x, y = at
    rim = tuple(round(c * 0.6) for c in fill) if draw.random() < 0.2 else None
    if shape == "circle":
        box = (x - radius, y - radius, x + radius, y + radius)
        pen.ellipse([c * scale for c in box], fill=fill, outline=rim, width=scale)
        return box
    corners = [(x + dx, y + dy) for dx, dy in _outline(draw, shape, radius)]
    pen.polygon([(cx * scale, cy * scale) for cx, cy in corners], fill=fill, outline=rim, width=scale)
    xs, ys = [c[0] for c in corners], [c[1] for c in corners]
    return (min(xs), min(ys), max(xs), max(ys))


def _apart(box: Box, others: list[Box], gap: float) -> bool:
    return all(box[2] + gap < o[0] or o[2] + gap < box[0] or box[3] + gap < o[1] or o[3] + gap < box[1] for o in others)


def _aged(draw: random.Random, picture: Image.Image) -> np.ndarray:
    """A picture as it may arrive: once smaller, out of focus, noisy."""
    width, height = picture.size
    if draw.random() < 0.2:
        factor = draw.uniform(0.5, 0.8)
        picture = picture.resize((round(width * factor), round(height * factor)), 2).resize((width, height), 3)
    if draw.random() < 0.15:
        picture = picture.filter(ImageFilter.GaussianBlur(draw.uniform(0.3, 0.9)))
    pixels = np.asarray(picture)
    if draw.random() < 0.25:
        noise = np.random.default_rng(draw.getrandbits(32)).normal(0, draw.uniform(2, 9), pixels.shape)
        pixels = np.clip(pixels + noise, 0, 255).astype(np.uint8)
    return pixels


def shapes(draw: random.Random, width: int, height: int, count: int) -> Scene:
    """A picture with up to `count` shapes that do not touch; one shape may be as large as the picture allows."""
    scale, side = 2, min(width, height)
    picture, behind = _backdrop(draw, width, height, scale)
    pen = ImageDraw.Draw(picture)
    things: list[Thing] = []
    palette = [c for c in COLOURS if c != "black" or sum(behind) > 240]
    few_kinds = draw.random() < 0.5  # many of one kind make counting worth learning
    kinds = [(draw.choice(SHAPES), draw.choice(palette)) for _ in range(2 if few_kinds else count)]
    for number in range(count):
        shape, colour = draw.choice(kinds) if few_kinds else kinds[number]
        for _ in range(12):
            fill = shade(draw, colour)
            if distance(fill, behind) > 0.16:
                break
        else:
            continue
        for _ in range(30):
            largest = 0.45 if count == 1 else 0.3 if count < 4 else 0.22
            radius = side * draw.uniform(0.1, largest)
            x, y = draw.uniform(radius, width - radius), draw.uniform(radius, height - radius)
            if _apart((x - radius, y - radius, x + radius, y + radius), [t.box for t in things], 2):
                things.append(Thing(shape, colour, _put(pen, draw, shape, (x, y), radius, fill, scale)))
                break
    return Scene(_aged(draw, picture.reduce(scale)), tuple(things))


# --- printed text --------------------------------------------------------------------------------


@cache
def fonts() -> tuple[str, ...]:
    """The files of the upright fonts of the installed font packages, in a fixed order."""
    families = {e.name: e.load() for group in ("fonts_ttf", "fonts_otf") for e in entry_points(group=group)}
    files = {str(file) for family in families.values() for file in family.values()}
    thin = ("It.", "Italic", "ExtraLight", "Variable")
    return tuple(sorted(f for f in files if not any(part in Path(f).name for part in thin)))


@cache
def _font(file: str, size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.truetype(file, size) if file else ImageFont.load_default(size)


def _any_font(draw: random.Random, size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return _font(draw.choice((*fonts(), "", "")), size)


def _write(pen: ImageDraw.ImageDraw, text: str, at: tuple[float, float], font: ImageFont.FreeTypeFont, fill: Rgb,
           spacing: float, scale: int) -> list[Glyph]:  # fmt: skip
    """Writes letter by letter, left end and middle line at `at` (in scaled pixels); boxes at scale 1."""
    x, middle = at
    glyphs = []
    for char in text:
        pen.text((x, middle), char, font=font, fill=fill, anchor="lm")
        box = pen.textbbox((x, middle), char, font=font, anchor="lm")
        glyphs.append(Glyph(char, tuple(c / scale for c in box)))  # type: ignore[arg-type]
        x += font.getlength(char) + spacing
    return glyphs


def any_word(draw: random.Random) -> str:
    """One to six letters, digits, or both."""
    length = draw.choice((1, 2, 3, 3, 4, 4, 5, 5, 6, 6))
    return "".join(draw.choices(draw.choice((LETTERS, LETTERS, DIGITS, UNMISTAKABLE)), k=length))


def sign(draw: random.Random, width: int, height: int) -> Scene:
    """A sign with one word."""
    scale, word = 2, any_word(draw)
    picture, behind = _backdrop(draw, width, height, scale)
    pen = ImageDraw.Draw(picture)
    size = draw.uniform(0.3, 0.75) * height * scale
    for _ in range(20):
        font = _any_font(draw, max(14, round(size)))
        spacing = draw.choice((0, 0, draw.uniform(0, 0.15) * size))
        length = sum(font.getlength(c) + spacing for c in word) - spacing
        if length < width * scale * 0.92:
            break
        size *= 0.92 * width * scale / length
    left = draw.uniform(0.03 * width * scale, max(0.04 * width * scale, width * scale * 0.97 - length))
    middle = draw.uniform(
        min(0.5 * height * scale, size * 0.55), max(0.5 * height * scale, height * scale - size * 0.55)
    )
    if draw.random() < 0.6:
        plate: Rgb = shade(draw, draw.choice(COLOURS)) if draw.random() < 0.6 else _plain(draw)
        pad = size * draw.uniform(0.15, 0.4)
        area = (left - pad, middle - size * 0.5 - pad / 2, left + length + pad, middle + size * 0.5 + pad / 2)
        corner, rim = draw.uniform(0, pad), draw.choice((None, (255, 255, 255), (0, 0, 0)))
        pen.rounded_rectangle(area, corner, fill=plate, outline=rim, width=draw.randint(1, 4))
        behind = plate
    ink = _ink(draw, behind)
    glyphs = _write(pen, word, (left, middle), font, ink, spacing, scale)  # type: ignore[arg-type]
    return Scene(_aged(draw, picture.reduce(scale)), glyphs=tuple(glyphs), word=word)


def _ink(draw: random.Random, behind: Rgb) -> Rgb:
    """A colour that can be read on another."""
    for _ in range(20):
        ink = draw.choice(((0, 0, 0), (255, 255, 255), shade(draw, draw.choice(COLOURS)), _plain(draw)))
        if distance(ink, behind) > 0.35:
            return ink
    return (0, 0, 0) if sum(behind) > 380 else (255, 255, 255)


# --- bar charts ----------------------------------------------------------------------------------

TOPS = (10, 20, 50, 100)
"""Where the axis of a chart may end."""


def chart(draw: random.Random, width: int, height: int) -> Scene:
    """A chart with 3 to 5 bars that are named by letters, and an axis from 0 to one of `TOPS`."""
    scale, count, top = 2, draw.randint(3, 5), draw.choice(TOPS)
    pale = tuple(draw.randint(225, 255) for _ in range(3))
    picture = Image.new("RGB", (width * scale, height * scale), pale)
    pen = ImageDraw.Draw(picture)
    font = _any_font(draw, scale * draw.randint(10, 13))
    ink: Rgb = (draw.randint(0, 70),) * 3
    left, right = scale * draw.uniform(24, 30), scale * (width - draw.uniform(3, 8))
    bottom, ceiling = scale * (height - draw.uniform(17, 21)), scale * draw.uniform(8, 14)
    for tick in range(0, 5, draw.choice((1, 2, 4))):
        y = bottom + (ceiling - bottom) * tick / 4
        pen.line((left - 3 * scale, y, left, y), fill=ink, width=scale)
        if draw.random() < 0.5:
            pen.line((left, y, right, y), fill=tuple(c - 25 for c in pale), width=1)
    glyphs = []
    for value, y in ((top, ceiling), (0, bottom)):
        at = (left - 4 * scale - font.getlength(str(value)), y)
        glyphs += _write(pen, str(value), at, font, ink, 0, scale)  # type: ignore[arg-type]
    values = draw.sample(range(max(1, top // 20), top + 1), count)
    names = draw.choice(("ABCDE", "ABCDE", "".join(draw.sample(LETTERS, 5))))[:count]
    step, slim = (right - left) / count, draw.uniform(0.45, 0.8)
    one_colour = shade(draw, draw.choice(COLOURS)) if draw.random() < 0.5 else None
    things = []
    for place, (name, value) in enumerate(zip(names, values, strict=True)):
        colour = draw.choice(COLOURS)
        x0 = left + step * (place + (1 - slim) / 2)
        box = (x0, bottom + (ceiling - bottom) * value / top, x0 + step * slim, bottom)
        pen.rectangle(box, fill=one_colour or shade(draw, colour))
        tight = (box[0] / scale, box[1] / scale, box[2] / scale, box[3] / scale)
        things.append(Thing("bar", "" if one_colour else colour, tight))
        middle = x0 + step * slim / 2 - font.getlength(name) / 2
        glyphs += _write(pen, name, (middle, bottom + 10 * scale), font, ink, 0, scale)  # type: ignore[arg-type]
    pen.line((left, ceiling, left, bottom, right, bottom), fill=ink, width=scale)
    bars = tuple(Bar(name, value) for name, value in zip(names, values, strict=True))
    return Scene(_aged(draw, picture.reduce(scale)), tuple(things), tuple(glyphs), bars=bars)
