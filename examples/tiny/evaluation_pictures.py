"""Draws the pictures for measuring: the same kind as the training's, by other code.

Nothing is shared with `pictures.py` but the names of colours and shapes. Shapes are computed from distances instead of
drawn with a pen, shades are named ones of the web, backgrounds are made of other patterns, text is in other fonts and
charts come from matplotlib, at sizes from 64 to 640 pixels.
"""

from __future__ import annotations

import io
import random
from dataclasses import dataclass, field

import matplotlib as mpl
import numpy as np
from matplotlib import colors, font_manager
from PIL import Image, ImageDraw, ImageFont

mpl.use("agg")
from matplotlib import pyplot

SHADES = {
    "red": ("red", "crimson", "firebrick", "#d62828", "#e63946"),
    "yellow": ("yellow", "gold", "#ffd60a", "#ffdd33", "#f5cb00"),
    "green": ("green", "forestgreen", "limegreen", "#2a9d4a", "seagreen"),
    "blue": ("blue", "royalblue", "#1d4ed8", "#2563eb", "mediumblue"),
    "purple": ("purple", "darkviolet", "#7b2cbf", "darkorchid", "#6a0dad"),
    "black": ("black", "#111111", "#1b1b1b", "#0b0f14"),
}
BACKGROUNDS = (
    "white", "whitesmoke", "ivory", "lightgray", "aliceblue", "mistyrose", "honeydew", "lavender", "beige", "dimgray",
    "#22262b",
)  # fmt: skip
PLATES = (
    ("white", "black"), ("navy", "white"), ("gold", "black"), ("darkgreen", "white"), ("black", "yellow"),
    ("lightgray", "darkred"),
)  # fmt: skip
SHAPES = ("circle", "square", "triangle", "star")
FONTS = ("DejaVu Sans", "DejaVu Serif", "DejaVu Sans Mono", "STIXGeneral")


@dataclass(frozen=True)
class Shape:
    """A shape with its tight box (x0, y0, x1, y1) and its centre in pixels."""

    shape: str
    colour: str
    box: tuple[float, float, float, float]
    centre: tuple[float, float]


@dataclass(frozen=True)
class Sample:
    """A picture and what is on it."""

    picture: Image.Image
    shapes: tuple[Shape, ...] = ()
    word: str = ""
    bars: dict[str, float] = field(default_factory=dict)
    top: float = 0


def _rgb(name: str) -> np.ndarray:
    return np.array(colors.to_rgb(name))


def _size(draw: random.Random) -> tuple[int, int]:
    """Width from 64 to 640, not more than twice as wide as high or the other way round."""
    width = draw.choice((64, 80, 96, 128, 160, 200, 256, 320, 400, 512, 640))
    return width, max(64, min(640, round(width * draw.choice((0.6, 0.75, 1, 1, 1, 1.33, 1.6)))))


def _canvas(draw: random.Random, width: int, height: int) -> np.ndarray:
    """A background (height, width, 3; 0..1): plain, squared paper, darker edges, or clouds."""
    ground = np.tile(_rgb(draw.choice(BACKGROUNDS)), (height, width, 1))
    y, x = np.mgrid[0:height, 0:width]
    noise = np.random.default_rng(draw.getrandbits(32))
    match draw.choice(("plain", "paper", "edges", "clouds")):
        case "paper":
            step = max(8, width // draw.randint(8, 16))
            ground[(x % step == 0) | (y % step == 0)] *= 0.88
        case "edges":
            far = ((x / width - 0.5) ** 2 + (y / height - 0.5) ** 2)[..., None]
            ground *= 1 - 0.5 * far
        case "clouds":
            waves = np.fft.fft2(noise.normal(size=(height, width)))
            pitch = np.hypot(*np.meshgrid(np.fft.fftfreq(height), np.fft.fftfreq(width), indexing="ij"))
            cloud = np.fft.ifft2(waves / (pitch + 0.01) ** 1.5).real
            ground += 0.05 * (cloud / (np.abs(cloud).max() + 1e-9))[..., None]
    return np.clip(ground, 0, 1)


def _inside(kind: str, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """How deep points lie inside a shape of radius 1 around (0, 0): above 0 within."""
    if kind == "circle":
        return 1 - np.hypot(x, y)
    if kind == "square":
        return 0.82 - np.maximum(np.abs(x), np.abs(y))
    angle, radius = np.arctan2(x, -y), np.hypot(x, y)
    if kind == "triangle":
        return 0.5 - np.max([radius * np.cos(angle - turn) for turn in (np.pi / 3, np.pi, -np.pi / 3)], axis=0)
    sector = np.abs((angle + np.pi / 5) % (2 * np.pi / 5) - np.pi / 5)  # 0 on a spike, pi/5 between two
    # Within one half of a spike the outline is the line from its tip (1, 0) to the notch beside it.
    notch_x, notch_y = 0.42 * np.cos(np.pi / 5), 0.42 * np.sin(np.pi / 5)
    along, across = radius * np.cos(sector), radius * np.sin(sector)
    return (1 - along) * notch_y - across * (1 - notch_x)


def shapes(draw: random.Random, count: int) -> Sample:
    """A picture with exactly `count` shapes that do not touch."""
    while True:
        width, height = _size(draw)
        pixels = _canvas(draw, width, height)
        middle = pixels.mean((0, 1))
        placed: list[tuple[float, float, float]] = []
        found: list[Shape] = []
        kinds = [(draw.choice(SHAPES), draw.choice(list(SHADES))) for _ in range(draw.randint(1, count))]
        side = min(width, height)
        for _ in range(200):
            if len(found) == count:
                break
            kind, colour = draw.choice(kinds)
            shade = _rgb(draw.choice(SHADES[colour]))
            radius = side * draw.uniform(0.11, {1: 0.4, 2: 0.26, 3: 0.24}.get(count, 0.19))
            x, y = draw.uniform(radius + 1, width - radius - 1), draw.uniform(radius + 1, height - radius - 1)
            clear = all(np.hypot(x - a, y - b) > radius + r + 0.02 * side for a, b, r in placed)
            if not clear or np.abs(shade - middle).sum() < 0.5:
                continue
            fine = 3
            grid = (np.arange(max(width, height) * fine) + 0.5) / fine
            gx, gy = np.meshgrid((grid[: width * fine] - x) / radius, (grid[: height * fine] - y) / radius)
            mask = _inside(kind, gx, gy) > 0
            cover = mask.reshape(height, fine, width, fine).mean((1, 3))[..., None]
            pixels = pixels * (1 - cover) + shade * cover
            rows, columns = np.where(mask.any(1))[0] / fine, np.where(mask.any(0))[0] / fine
            box = (columns[0], rows[0], columns[-1] + 1 / fine, rows[-1] + 1 / fine)
            placed.append((x, y, radius))
            found.append(Shape(kind, colour, tuple(map(float, box)), (x, y)))  # type: ignore[arg-type]
        if len(found) == count:
            return Sample(Image.fromarray((pixels * 255).astype(np.uint8)), tuple(found))


def sign(draw: random.Random) -> Sample:
    """A word of up to six letters or digits on a plate."""
    letters = draw.choice(("ABCDEFGHIJKLMNOPQRSTUVWXYZ", "0123456789", "ABCDEFGHJKLMNPQRSTUVWXYZ23456789"))
    word = "".join(draw.choice(letters) for _ in range(draw.randint(1, 6)))
    width = draw.choice((128, 160, 200, 256, 320, 400, 512, 640))
    height = round(width * draw.choice((0.4, 0.5, 0.6, 0.75)))
    picture = Image.fromarray((_canvas(draw, width, height) * 255).astype(np.uint8))
    pen = ImageDraw.Draw(picture)
    weight = draw.choice(("normal", "bold"))
    file = font_manager.findfont(font_manager.FontProperties(family=draw.choice(FONTS), weight=weight))
    size = height * draw.uniform(0.4, 0.7)
    font = ImageFont.truetype(file, size)
    size *= min(1, width * 0.84 / font.getlength(word))
    font = ImageFont.truetype(file, size)
    plate, ink = draw.choice(PLATES)
    left, top, right, bottom = pen.textbbox((width / 2, height / 2), word, font=font, anchor="mm")
    pad = size * 0.22
    pen.rectangle((left - pad, top - pad, right + pad, bottom + pad), fill=plate)
    pen.text((width / 2, height / 2), word, font=font, fill=ink, anchor="mm")
    return Sample(picture, word=word)


def chart(draw: random.Random) -> Sample:
    """A bar chart as matplotlib draws it."""
    count, top = draw.randint(3, 5), draw.choice((10, 20, 50, 100))
    names = "ABCDE"[:count]
    values = draw.sample(range(max(1, top // 10), top + 1), count)
    width = draw.choice((200, 256, 320, 400, 512, 640))
    scale = width / 320
    figure, axes = pyplot.subplots(figsize=(3.2, 2.6), dpi=100 * scale)
    fill = [draw.choice(SHADES[draw.choice(list(SHADES))]) for _ in names]
    axes.bar(list(names), values, color=fill, width=draw.uniform(0.5, 0.8))
    axes.set_ylim(0, top)
    axes.set_yticks([0, top // 2, top])
    axes.tick_params(labelsize=draw.choice((13, 15)))
    for edge in ("top", "right"):
        axes.spines[edge].set_visible(draw.random() < 0.5)
    figure.tight_layout()
    file = io.BytesIO()
    figure.savefig(file, format="png")
    pyplot.close(figure)
    return Sample(Image.open(file).convert("RGB"), bars=dict(zip(names, map(float, values), strict=True)), top=top)
