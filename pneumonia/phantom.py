"""Cartoon chest films: a plain description goes in, a 1024 x 1024 uint8 image comes out.

Pure arrays; the only door to Pillow. Soft tissue is computed on a quarter grid and enlarged,
which is what makes a film cost milliseconds; whatever has a sharp edge (lines, devices, letters)
is drawn at full size. Lengths and places are fractions of the frame, x to the viewer's right and
y downwards; the patient's left side, with most of the heart, is at the viewer's right.
"""

import functools
import io
import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

SIDE = 1024
"""Side of a film, pixels, as in the challenge's files."""

Grey = NDArray[np.floating[Any]]
"""Grey levels, 0 black to 255 white, on the quarter grid."""

FINDINGS = ("line", "device", "large_heart", "nodules", "scars")
"""What a film may show that is no lung opacity."""

_GRID = 256
_BRIGHTEST = 222.0  # of tissue, so that the letters can be read on every film
_GRAIN = 1536  # the grain is cut from a tile of this side, so that films do not share it


@dataclass(frozen=True)
class Anatomy:
    """How a person is built, and how the film was taken.

    Args:
        middle: x of the spine.
        lung_width, lung_top: half the width of a lung; y of its top.
        diaphragm: y of the domes; high in an AP film, taken lying or sitting in bed.
        heart: half the heart's width.
        rib_spacing, rib_phase: y between ribs; where the first one lies, radians.
        gamma, gain: exposure.
    """

    middle: float
    lung_width: float
    lung_top: float
    diaphragm: float
    heart: float
    rib_spacing: float
    rib_phase: float
    gamma: float
    gain: float


@dataclass(frozen=True)
class Opacity:
    """A cloud in a lung; `contrast` is its height in grey levels before the exposure."""

    x: float
    y: float
    half_width: float
    half_height: float
    contrast: float

    def box(self) -> tuple[int, int, int, int]:
        """The box a reader would draw: x, y, width, height in pixels, inside the frame.

        >>> Opacity(0.5, 0.5, 0.125, 0.25, 40.0).box()
        (384, 256, 256, 512)
        """
        left = max(0, round((self.x - self.half_width) * SIDE))
        top = max(0, round((self.y - self.half_height) * SIDE))
        right = min(SIDE, round((self.x + self.half_width) * SIDE))
        bottom = min(SIDE, round((self.y + self.half_height) * SIDE))
        return left, top, right - left, bottom - top


def draw_anatomy(person: np.random.Generator, film: np.random.Generator, *, view: str) -> Anatomy:
    """Draw an anatomy: what `person` decides stays the same from film to film.

    Args:
        view: `AP` (high diaphragm, large heart, flat exposure) or `PA`.
    """
    is_ap = view == "AP"
    build = person.normal(size=6)
    posture = film.normal(size=5)
    return Anatomy(
        middle=0.5 + 0.012 * posture[0],
        lung_width=0.152 + 0.008 * build[0],
        lung_top=0.115 + 0.012 * build[1] + 0.01 * posture[1],
        diaphragm=(0.70 if is_ap else 0.77) + 0.02 * build[2] + 0.018 * posture[2],
        heart=(0.150 if is_ap else 0.125) + 0.010 * build[3],
        rib_spacing=0.078 + 0.003 * build[4],
        rib_phase=float(build[5]),
        gamma=(1.0 if is_ap else 1.1) * math.exp(0.10 * posture[3]),
        gain=min(1.1, 0.97 * math.exp(0.06 * posture[4])),
    )


def place_opacities(
    body: Anatomy, count: int, film: np.random.Generator, *, contrast: float
) -> tuple[Opacity, ...]:
    """Place `count` opacities in the lungs, on alternating sides.

    Args:
        contrast: grey levels of a typical one; the others scatter by a factor of 1.6.
    """
    first = film.integers(2)
    clouds = []
    for number in range(count):
        side = 1 if (first + number) % 2 else -1
        half_width = body.lung_width * film.uniform(0.45, 0.85)
        height = body.diaphragm - body.lung_top
        half_height = height * film.uniform(0.17, 0.36) * (0.75 if count > 2 else 1.0)
        lowest, highest = body.diaphragm - half_height, body.lung_top + 0.1 + half_height
        clouds.append(
            Opacity(
                x=_lung_middle(body, side) + film.uniform(-0.2, 0.2) * body.lung_width,
                y=float(highest + (lowest - highest) * film.beta(2.0, 1.3)),
                half_width=half_width,
                half_height=half_height,
                contrast=contrast * math.exp(0.5 * film.normal()),
            )
        )
    return tuple(clouds)


def draw(
    body: Anatomy,
    clouds: tuple[Opacity, ...],
    findings: tuple[str, ...],
    film: np.random.Generator,
) -> NDArray[np.uint8]:
    """Draw a film, larger is brighter, with the word SIMULATED burned in.

    Args:
        findings: names of `FINDINGS`.

    Raises:
        ValueError: a finding of another name.
    """
    unknown = [finding for finding in findings if finding not in FINDINGS]
    if unknown:
        raise ValueError(f"`findings` must be names of {FINDINGS}, got {unknown}")
    x: Grey = ((np.arange(_GRID, dtype=np.float32) + 0.5) / np.float32(_GRID))[None, :]
    y: Grey = x.T
    texture = _noise(film, cells=40) + 0.6 * _noise(film, cells=90)
    haze, grain = _noise(film, cells=9), _grain(film)
    haziness = film.uniform(3.0, 9.0)
    if "large_heart" in findings:
        body = replace(body, heart=body.heart * film.uniform(1.2, 1.4))
    lung = (_lung(body, -1, x, y) + _lung(body, 1, x, y)) * (1.0 - _heart(body, x, y))
    inside = 3.0 * texture + haziness * haze
    for cloud in clouds:
        inside += _cloud(cloud, texture + haze, x, y)
    if "nodules" in findings:
        inside += _nodules(body, film, x, y)
    if "scars" in findings:
        inside += _scars(body, film, x, y)
    grey = _tissue(body, lung, x, y) + inside * (0.1 + 0.9 * lung)
    grey = 255.0 * body.gain * (np.clip(grey, 0.0, 255.0) / 255.0) ** body.gamma
    enlarged = Image.fromarray(np.clip(grey, 0.0, _BRIGHTEST).astype(np.uint8)).resize(
        (SIDE, SIDE), Image.Resampling.BICUBIC
    )
    pixels = np.asarray(enlarged, np.int16) + grain
    picture = Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))
    pen = ImageDraw.Draw(picture)
    if "line" in findings:
        _draw_line(pen, body, film)
    if "device" in findings:
        _draw_device(pen, body, film)
    _draw_letters(pen, film)
    return np.asarray(picture)


def encode_jpeg(image: NDArray[np.uint8], *, quality: int = 80) -> bytes:
    """Encode a grey image as JPEG Baseline (8 bit, one component)."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


def _lung_middle(body: Anatomy, side: int) -> float:
    return body.middle + side * (body.lung_width + 0.045)


def _lung(body: Anatomy, side: int, x: Grey, y: Grey) -> Grey:
    """How much of each grid point is lung, 0 to 1: an ellipse cut off by the diaphragm's dome."""
    across = (x - _lung_middle(body, side)) / body.lung_width
    height = body.diaphragm - body.lung_top
    down = (y - (body.lung_top + 0.62 * height)) / (0.62 * height)
    inside = 1.0 - across**2 - np.where(down < 0, down**2, 0.3 * down**2)
    dome = body.diaphragm + 0.05 * (across - 0.25 * side) ** 2 - 0.012 * side
    return _step(inside / 0.16) * _step((dome - y) / 0.012)


def _heart(body: Anatomy, x: Grey, y: Grey) -> Grey:
    """How much of each grid point is heart, 0 to 1."""
    across = (x - body.middle - 0.42 * body.heart) / body.heart
    down = (y - body.diaphragm + 0.55 * body.heart) / (0.85 * body.heart)
    return _step((1.0 - across**2 - down**2 - 0.35 * across * down) / 0.25)


def _tissue(body: Anatomy, lung: Grey, x: Grey, y: Grey) -> Grey:
    """The film of a healthy chest."""
    off_middle = np.abs(x - body.middle)
    shoulder = 0.12 + 0.36 * _step((y - 0.06) / 0.10)
    torso = _step((shoulder - off_middle) / 0.02)
    ribs = np.cos((y - 0.55 * off_middle + 0.9 * off_middle**2) * (2 * np.pi / body.rib_spacing)
                  + body.rib_phase)  # fmt: skip
    grey: Grey = 10.0 + torso * (148.0 + 22.0 * (y - 0.5)) + torso * np.maximum(ribs, 0) * 5.0
    air = 66.0 + 16.0 * np.maximum(ribs, -0.2)
    air = air + 26.0 * np.exp(-(((off_middle - 0.07) / 0.05) ** 2) - ((y - 0.43) / 0.09) ** 2)
    grey += lung * (air - grey)
    spine = _step((0.042 - off_middle) / 0.025) * torso
    grey += spine * (176.0 - grey)
    grey += _heart(body, x, y) * np.maximum(172.0 - grey, 0.0)
    collar = _step((0.012 - np.abs(y - 0.165 + 0.22 * off_middle)) / 0.008)
    reach = _step((off_middle - 0.05) / 0.02) * _step((0.36 - off_middle) / 0.02)
    grey += 20.0 * collar * reach
    return grey


def _cloud(cloud: Opacity, texture: Grey, x: Grey, y: Grey) -> Grey:
    """A ragged ellipse whose soft rim ends at the box."""
    radius = np.hypot((x - cloud.x) / cloud.half_width, (y - cloud.y) / cloud.half_height)
    return cloud.contrast * _step((1.0 - radius + 0.12 * texture) / 0.6)


def _nodules(body: Anatomy, film: np.random.Generator, x: Grey, y: Grey) -> Grey:
    """A few small round spots with a sharp rim."""
    total = np.zeros((_GRID, _GRID), np.float32)
    for _ in range(int(film.integers(1, 4))):
        middle_x, middle_y = _place(body, film)
        radius = film.uniform(0.010, 0.022)
        away = np.hypot(x - middle_x, y - middle_y)
        total += 45.0 * _step((radius - away) / 0.006)
    return total


def _scars(body: Anatomy, film: np.random.Generator, x: Grey, y: Grey) -> Grey:
    """A few thin straight bands."""
    total = np.zeros((_GRID, _GRID), np.float32)
    for _ in range(int(film.integers(2, 5))):
        middle_x, middle_y = _place(body, film)
        angle = film.uniform(-0.6, 0.6)
        along = (x - middle_x) * math.cos(angle) + (y - middle_y) * math.sin(angle)
        aside = (y - middle_y) * math.cos(angle) - (x - middle_x) * math.sin(angle)
        total += (
            30.0 * _step((0.07 - np.abs(along)) / 0.02) * _step((0.004 - np.abs(aside)) / 0.006)
        )
    return total


def _place(body: Anatomy, film: np.random.Generator) -> tuple[float, float]:
    """A point well inside a lung."""
    side = 1 if film.integers(2) else -1
    x = _lung_middle(body, side) + film.uniform(-0.6, 0.6) * body.lung_width
    return x, film.uniform(body.lung_top + 0.12, body.diaphragm - 0.05)


def _draw_line(pen: ImageDraw.ImageDraw, body: Anatomy, film: np.random.Generator) -> None:
    """A catheter from the neck or an arm to the heart."""
    side = 1 if film.integers(2) else -1
    t = np.linspace(0.0, 1.0, 40)
    start = body.middle + side * film.uniform(0.06, 0.3)
    end = body.middle + film.uniform(-0.04, 0.04)
    x = start + (end - start) * t**2 + film.uniform(-0.02, 0.02) * np.sin(np.pi * t)
    y = 0.08 + (body.diaphragm - film.uniform(0.12, 0.3) - 0.08) * t
    points = [(float(px), float(py)) for px, py in zip(x * SIDE, y * SIDE, strict=True)]
    pen.line(points, fill=int(film.integers(190, 226)), width=int(film.integers(4, 8)))


def _draw_device(pen: ImageDraw.ImageDraw, body: Anatomy, film: np.random.Generator) -> None:
    """A pacemaker under the collar bone, with its lead."""
    x = (body.middle + film.uniform(0.16, 0.24)) * SIDE
    y = film.uniform(0.17, 0.24) * SIDE
    size = film.uniform(34, 48)
    tip = ((body.middle + 0.05) * SIDE, (body.diaphragm - 0.08) * SIDE)
    pen.line([(x, y), (body.middle * SIDE, y + 60), tip], fill=215, width=5, joint="curve")
    pen.rounded_rectangle((x - size, y - 0.8 * size, x + size, y + 0.8 * size), 20, fill=232)


def _draw_letters(pen: ImageDraw.ImageDraw, film: np.random.Generator) -> None:
    """The side marker and the word that no real film carries."""
    pen.text((940 + int(film.integers(-15, 16)), 40), "L", fill=235, font=_font(56))
    pen.text((SIDE // 2, SIDE - 34), "SIMULATED", fill=235, font=_font(44), anchor="mm")


@functools.cache
def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)


def _step(value: Grey) -> Grey:
    """0 below 0, 1 above 1, smooth between (the cubic of Hermite): an edge without `exp`."""
    clipped = np.clip(value, 0.0, 1.0)
    return np.asarray(clipped * clipped * (3.0 - 2.0 * clipped))


def _noise(film: np.random.Generator, *, cells: int) -> Grey:
    """Smooth noise of about unit variance, `cells` bumps across the frame."""
    coarse = film.standard_normal((cells, cells), np.float32)
    smooth = Image.fromarray(coarse).resize((_GRID, _GRID), Image.Resampling.BICUBIC)
    return np.asarray(smooth, np.float32)


def _grain(film: np.random.Generator) -> NDArray[np.int8]:
    """The film's own noise, (SIDE, SIDE) grey levels."""
    top, left = film.integers(0, _GRAIN - SIDE, 2)
    return np.asarray(_grain_tile()[top : top + SIDE, left : left + SIDE])


@functools.cache
def _grain_tile() -> NDArray[np.int8]:
    noise = np.random.default_rng(0).standard_normal((_GRAIN, _GRAIN), np.float32)
    tile: NDArray[np.int8] = np.rint(3.0 * noise).astype(np.int8)
    return tile
