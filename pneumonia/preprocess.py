"""Grey levels and geometry: stored pixel values to a square uint8 image, larger is brighter.

Pure functions of arrays. In: pixels as stored, (rows, columns), and the rule that gives them a
meaning. Out: (side, side) uint8, and the geometry that maps original to stored coordinates.

The whole chain from a stored value to a grey level (modality LUT or rescale, VOI LUT or window,
inversion, padding) is a function of that one value, so it is computed once per possible value, in
float64, and applied as a table of at most 65,536 entries. Averages are taken of grey levels, in
257ths of one (`FINE`), so that rounding happens once, at the end.
"""

from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

FINE = 257
"""Steps of one grey level in a uint16 image: 255 x 257 = 65,535."""

PERCENTILES = (0.5, 99.5)
"""Where a file has neither window nor VOI LUT, these percentiles of its pixels become black and
white: they leave out burned-in letters and the collimator's edge, not the lungs."""

WindowFunction = Literal["LINEAR", "LINEAR_EXACT", "SIGMOID"]

_BAND = 256  # rows looked up at a time
_BLOCK = 8  # padding moves in steps of the largest scaled decode, so it is the same for all of them

Pixels = NDArray[np.uint8] | NDArray[np.int8] | NDArray[np.uint16] | NDArray[np.int16]


@dataclass(frozen=True)
class Window:
    """A VOI window (PS3.3 C.11.2.1.2), in output units of the modality transformation."""

    center: float
    width: float
    function: WindowFunction = "LINEAR"

    def __post_init__(self) -> None:
        """Check the width."""
        least = 1.0 if self.function == "LINEAR" else 0.0
        if self.width < least or (self.function != "LINEAR" and self.width == 0.0):
            raise ValueError(f"`width` must be at least {least:g} and positive, got {self.width}.")

    def __call__(self, value: NDArray[np.float64]) -> NDArray[np.float64]:
        """Map values to brightness in [0, 1].

        >>> Window(center=2.5, width=5)(np.array([0.0, 2.0, 4.0]))
        array([0. , 0.5, 1. ])
        """
        if self.function == "SIGMOID":  # C.11.2.1.3.1
            exponent = np.clip(-4.0 * (value - self.center) / self.width, -700.0, 700.0)
            return 1.0 / (1.0 + np.exp(exponent))
        if self.function == "LINEAR_EXACT":  # C.11.2.1.3.2
            return np.clip((value - self.center) / self.width + 0.5, 0.0, 1.0)
        if self.width == 1.0:  # C.11.2.1.2.1: then it is a threshold
            return (value > self.center - 0.5).astype(np.float64)
        return np.clip((value - (self.center - 0.5)) / (self.width - 1.0) + 0.5, 0.0, 1.0)


@dataclass(frozen=True, eq=False)
class Lut:
    """A lookup table of a file (PS3.3 C.11.1.1 and C.11.2.1.1).

    Args:
        first: the input value that maps to the first entry; smaller ones do too.
        entries: (n,) output values; inputs beyond the end map to the last.
        bits: depth of the output.
    """

    first: int
    entries: NDArray[np.float64]
    bits: int

    def __call__(self, value: NDArray[np.float64]) -> NDArray[np.float64]:
        """Look values up.

        >>> Lut(first=10, entries=np.array([5.0, 7.0]), bits=8)(np.array([0.0, 10.0, 11.0, 99.0]))
        array([5., 5., 7., 7.])
        """
        place = np.clip(value - self.first, 0, len(self.entries) - 1).astype(np.intp)
        return self.entries[place]


@dataclass(frozen=True, eq=False)
class GreyRule:
    """What a stored value means.

    Args:
        bits: stored bits, 8 to 16.
        signed: two's complement.
        slope: of the rescale; with `intercept`, instead of `modality`.
        modality: the modality LUT.
        voi: window or VOI LUT; None: percentiles, but 8 plain unsigned bits stay as they are.
        padding: first and last stored value that is no image at all and becomes black.
        inverted: MONOCHROME1, where the smallest value is white.
    """

    bits: int = 8
    signed: bool = False
    slope: float = 1.0
    intercept: float = 0.0
    modality: Lut | None = None
    voi: Window | Lut | None = None
    padding: tuple[int, int] | None = None
    inverted: bool = False

    def __post_init__(self) -> None:
        """Check the depth."""
        if not 8 <= self.bits <= 16:
            raise ValueError(f"`bits` must be in 8..16, got {self.bits}.")

    @property
    def grey(self) -> bool:
        """Stored values are grey levels already, but for inversion and padding."""
        unscaled = self.slope == 1.0 and self.intercept == 0.0 and self.modality is None
        return self.bits == 8 and not self.signed and unscaled and self.voi is None

    @property
    def plain(self) -> bool:
        """Stored values are grey levels already, but for inversion."""
        return self.grey and self.padding is None


def render(pixels: Pixels, rule: GreyRule) -> NDArray[np.uint8] | NDArray[np.uint16]:
    """Turn stored values into grey levels.

    Args:
        pixels: (rows, columns) stored values; bits above `rule.bits` are not looked at.

    Returns:
        (rows, columns) uint8 for a plain rule, else uint16 in 257ths of a grey level.
    """
    if rule.plain:
        grey = pixels.astype(np.uint8, copy=False)
        return np.bitwise_not(grey) if rule.inverted else grey
    raw = pixels.view(np.uint8 if pixels.dtype.itemsize == 1 else np.uint16)
    if rule.bits < 8 * raw.dtype.itemsize:
        raw = np.bitwise_and(raw, (1 << rule.bits) - 1)
    bands = [slice(start, start + _BAND) for start in range(0, len(raw), _BAND)]
    counts = np.zeros(1 << rule.bits, np.intp)
    if rule.voi is None and not rule.grey:
        for band in bands:
            counts += np.bincount(raw[band].ravel(), minlength=len(counts))
    table = grey_table(rule, counts)
    grey = np.empty(raw.shape, np.uint16)
    for band in bands:  # NumPy widens an index to 64 bits: four times a whole frame's memory
        grey[band] = table[raw[band]]
    return grey


def grey_table(rule: GreyRule, counts: NDArray[np.intp] | None = None) -> NDArray[np.uint16]:
    """Grey level of every possible stored value.

    Args:
        counts: (2 ** bits,) how often each value occurs; asked for where the rule has no window
            and values are no grey levels.

    Returns:
        (2 ** bits,) uint16 in 257ths of a grey level, indexed by the value's bits.

    Raises:
        ValueError: no window and no counts.
    """
    stored = np.arange(1 << rule.bits, dtype=np.int64)
    if rule.signed:
        stored[stored >> (rule.bits - 1) == 1] -= 1 << rule.bits
    shown = np.ones(len(stored), dtype=np.bool_)
    if rule.padding is not None:
        low, high = sorted(rule.padding)
        shown = (stored < low) | (stored > high)
    value = stored.astype(np.float64)
    value = rule.modality(value) if rule.modality else value * rule.slope + rule.intercept
    if isinstance(rule.voi, Lut):
        light = np.clip(rule.voi(value) / ((1 << rule.voi.bits) - 1), 0.0, 1.0)
    elif rule.voi is not None:
        light = rule.voi(value)
    elif rule.grey:
        light = value / 255.0
    elif counts is None:
        raise ValueError("`counts` must be given where the rule has neither window nor VOI LUT.")
    else:
        light = _stretch(value, np.where(shown, counts, 0))
    if rule.inverted:
        light = 1.0 - light
    fine: NDArray[np.uint16] = np.rint(np.where(shown, light, 0.0) * (255 * FINE)).astype(np.uint16)
    return fine


@dataclass(frozen=True)
class Geometry:
    """Where the original frame lies in the stored image: stored = original * scale + offset.

    Coordinates are of edges, as box corners are: 0 is the outer edge of the first pixel.
    """

    scale: float
    offset_x: float = 0.0
    offset_y: float = 0.0


def geometry(rows: int, columns: int, side: int) -> Geometry:
    """How a frame is brought into a square: one scale for both axes, the rest padded.

    >>> geometry(1024, 1024, 256)
    Geometry(scale=0.25, offset_x=0.0, offset_y=0.0)
    >>> geometry(1000, 2000, 200)
    Geometry(scale=0.1, offset_x=0.0, offset_y=49.6)
    """
    scale = side / max(rows, columns)
    top, left = _padding(rows, columns)
    return Geometry(scale, left * side / max(rows, columns), top * side / max(rows, columns))


def fit(
    grey: NDArray[np.uint8] | NDArray[np.uint16], side: int, shrunk: int = 1
) -> NDArray[np.uint8]:
    """Bring a frame into a black square by area average (smaller frames: bilinear).

    Args:
        grey: (rows, columns) grey levels, uint16 in 257ths.
        shrunk: by what the frame was decoded smaller than it is (1, 2, 4 or 8).

    Returns:
        (side, side) uint8.
    """
    rows, columns = grey.shape
    longest = max(rows, columns)
    if rows != columns:
        # One axis at a time: the average over an area is separable, and a long narrow frame
        # never grows to the full square.
        grey = grey if grey.dtype == np.uint16 else grey.astype(np.uint16) * np.uint16(FINE)
        top, left = (padding // shrunk for padding in _padding(rows * shrunk, columns * shrunk))
        if rows < columns:
            narrow = _resize(grey, rows, side)
            square = np.zeros((longest, side), np.uint16)
            square[top : top + rows] = narrow
        else:
            narrow = _resize(grey, side, columns)
            square = np.zeros((side, longest), np.uint16)
            square[:, left : left + columns] = narrow
        grey = square
    small = _resize(grey, side, side)
    if small.dtype == np.uint8:
        return small.astype(np.uint8, copy=False)
    return ((small.astype(np.uint32) + FINE // 2) // FINE).astype(np.uint8)


def _resize(
    grey: NDArray[np.uint8] | NDArray[np.uint16], rows: int, columns: int
) -> NDArray[np.uint8] | NDArray[np.uint16]:
    """Area average to fewer pixels, bilinear to more."""
    if grey.shape == (rows, columns):
        return grey
    grows = rows > grey.shape[0] or columns > grey.shape[1]
    how = cv2.INTER_LINEAR if grows else cv2.INTER_AREA
    return cv2.resize(grey, (columns, rows), interpolation=how)  # type: ignore[return-value]


def _padding(rows: int, columns: int) -> tuple[int, int]:
    """Black rows above and columns left of a frame, original pixels, multiples of a JPEG block."""
    longest = max(rows, columns)
    return (longest - rows) // 2 // _BLOCK * _BLOCK, (longest - columns) // 2 // _BLOCK * _BLOCK


def _stretch(value: NDArray[np.float64], counts: NDArray[np.intp]) -> NDArray[np.float64]:
    """Linear from the lower to the upper percentile of the values that occur; flat: black."""
    order = np.argsort(value, kind="stable")
    reached = np.cumsum(counts[order])
    if reached[-1] == 0:
        return np.zeros_like(value)
    places = np.searchsorted(reached, np.array(PERCENTILES) / 100.0 * reached[-1])
    low, high = value[order[np.minimum(places, len(order) - 1)]]
    if high <= low:
        return np.zeros_like(value)
    light: NDArray[np.float64] = np.clip((value - low) / (high - low), 0.0, 1.0)
    return light
