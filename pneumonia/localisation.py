"""Localisation: how well a map agrees with the radiologists' boxes.

In: a map of any size (a CAM, or the control), the geometry of the frame and its boxes. Out: six
measures per image, on the grid of the original pixels. Pure arrays; NaN where undefined.

M is the union of an image's boxes. The map is enlarged to the original grid bilinearly, before
any sigmoid and without clipping, so that a map of few cells is judged as the blur that it is.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pneumonia.metrics import at_least

Heat = NDArray[np.float32]
Mask = NDArray[np.bool_]

MEASURES = ("pointing", "iou", "dice", "cnr", "auprc", "energy_in_boxes")
THRESHOLDS = np.arange(1, 100) / 100
"""Thresholds on the map scaled to [0, 1] among which val chooses one."""
CONTROL_SIDE = 256
"""Cells along a side of the control: 4 of the challenge's pixels each."""


@dataclass(frozen=True)
class Scores:
    """The measures of one image.

    Args:
        pointing: 1 where the largest pixel (the first in row order, if several) lies in M, else 0.
        iou, dice: (T,) of the map scaled to [0, 1] and cut at each threshold, against M.
        cnr: contrast to noise, (mean inside - mean outside) / sqrt(variance inside + outside);
            NaN where M is empty or the whole image, or the map is constant.
        auprc: pixels as samples, M as labels: average precision (step sum).
        energy_in_boxes: of max(map, 0), the share in M; NaN where the map is nowhere positive.
    """

    pointing: float
    iou: NDArray[np.float64]
    dice: NDArray[np.float64]
    cnr: float
    auprc: float
    energy_in_boxes: float


def score(heat: Heat, mask: Mask, thresholds: NDArray[np.float64] = THRESHOLDS) -> Scores:
    """Measure one map against one image's boxes.

    Args:
        heat: (rows, columns) float32, finite.
        mask: (rows, columns) M.
        thresholds: (T,) on the map scaled to [0, 1].

    Raises:
        ValueError: shapes differ, or the mask is empty.
    """
    if heat.shape != mask.shape:
        raise ValueError(f"expected one shape, got {heat.shape} and {mask.shape}")
    if not mask.any():
        raise ValueError("expected at least one pixel of `mask` inside a box")
    inside, outside = np.sort(heat[mask]), np.sort(heat[~mask])
    everything = [inside, outside]
    low = min(float(part[0]) for part in everything if len(part))
    high = max(float(part[-1]) for part in everything if len(part))
    # of cuts at each threshold: how many pixels at or above, inside and outside
    cuts = (low + thresholds * (high - low)).astype(np.float32)
    kept_inside, kept_outside = (at_least(part, cuts) for part in everything)
    if low == high:  # a constant map scales to 0 everywhere
        kept_inside, kept_outside = np.zeros_like(kept_inside), np.zeros_like(kept_outside)
    hits = at_least(inside, inside)
    alarms = at_least(outside, inside)
    energy = [float(np.maximum(part, 0).sum(dtype=np.float64)) for part in everything]
    return Scores(
        pointing=float(mask.flat[int(heat.argmax())]),
        iou=kept_inside / (len(inside) + kept_outside),
        dice=2 * kept_inside / (len(inside) + kept_inside + kept_outside),
        cnr=_contrast_to_noise(inside, outside),
        auprc=float(np.mean(hits / (hits + alarms))),
        energy_in_boxes=energy[0] / sum(energy) if sum(energy) > 0 else float("nan"),
    )


def box_mask(boxes: NDArray[np.float64], rows: int, columns: int) -> Mask:
    """M: the pixels whose centre lies in a box.

    A box too thin for that is the pixels that hold its centre line, so that none is lost.

    Args:
        boxes: (n, 4) x, y, width, height in pixels, origin at the top left corner, in the frame.

    >>> box_mask(np.array([[1.0, 0.0, 2.0, 1.0]]), 2, 4).astype(int).tolist()
    [[0, 1, 1, 0], [0, 0, 0, 0]]
    """
    mask = np.zeros((rows, columns), np.bool_)
    for x, y, width, height in boxes:
        mask[_covered(y, height, rows), _covered(x, width, columns)] = True
    return mask


def control_map(boxes: list[NDArray[np.float64]], frames: NDArray[np.int64]) -> Heat:
    """The constant map: where boxes lie on average, the same for every image.

    Much published work does not beat it. It knows that opacities lie in lungs and nothing else.

    Args:
        boxes: per image (n, 4) in its own pixels.
        frames: (images, 2) rows and columns of each.

    Returns:
        (CONTROL_SIDE, CONTROL_SIDE) share of the images whose M covers a cell, each frame
        stretched to the square.
    """
    total = np.zeros((CONTROL_SIDE, CONTROL_SIDE))
    for own, (rows, columns) in zip(boxes, frames, strict=True):
        stretch = np.array([CONTROL_SIDE / columns, CONTROL_SIDE / rows])
        total += box_mask(own * np.tile(stretch, 2), CONTROL_SIDE, CONTROL_SIDE)
    return (total / max(1, len(boxes))).astype(np.float32)


def map_on_pixels(
    heat: Heat,
    lattice: tuple[float, float],
    shape: tuple[int, int],
    scale: float = 1.0,
    offset: tuple[float, float] = (0.0, 0.0),
) -> Heat:
    """A network's map on the pixels of a frame.

    Cell k is centred on the pixel that it looks around, which is about k * stride: a convolution
    of stride 2 with an odd, padded kernel keeps pixels 0, 2, 4, ..., and so does the next. Tiles
    of side / cells would put the map half a cell too far right and down.

    Args:
        heat: (h, w).
        lattice: of the network: the pixel of cell 0 and the pixels from cell to cell (stride),
            in the image that it saw, down as well as across.
        shape: rows and columns of the frame.
        scale: pixels of that image per pixel of the frame.
        offset: of the frame's edges in that image, y and x; cells of padding are left out.

    Returns:
        `shape`, float32.

    >>> map_on_pixels(np.array([[0.0, 4.0]], np.float32), (0.0, 4.0), (1, 6)).tolist()
    [[0.0, 1.0, 2.0, 3.0, 4.0, 4.0]]
    """
    origin, stride = lattice
    y, x = (
        (pixel_centres(pixels, scale, start) - origin) / stride
        for pixels, start in zip(shape, offset, strict=True)
    )
    return enlarge(heat, y, x)


def enlarge(
    heat: NDArray[np.floating[Any]], y: NDArray[np.float64], x: NDArray[np.float64]
) -> Heat:
    """Sample a map bilinearly at rows `y` and columns `x`, beyond its edge the edge's value.

    Args:
        heat: (h, w).
        y: (rows,) in cells; 0 is the centre of the first cell.
        x: (columns,) likewise.

    Returns:
        (rows, columns) float32.
    """
    vertical, horizontal = _interpolation(y, heat.shape[0]), _interpolation(x, heat.shape[1])
    return vertical @ heat.astype(np.float32) @ horizontal.T


def pixel_centres(pixels: int, scale: float, offset: float = 0.0) -> NDArray[np.float64]:
    """Where the centres of pixels lie on a grid that tiles the same frame, in its cells.

    Args:
        pixels: how many along the axis.
        scale: cells per pixel.
        offset: in cells, of the frame's edge from the grid's edge.

    Returns:
        (pixels,); 0 is the centre of the first cell.

    >>> pixel_centres(4, scale=0.5).tolist()
    [-0.25, 0.25, 0.75, 1.25]
    """
    return (np.arange(pixels, dtype=np.float64) + 0.5) * scale + (offset - 0.5)


def _covered(start: float, length: float, pixels: int) -> slice:
    """The pixels along an axis whose centre an interval holds; at least the one at its middle."""
    first, end = (max(0, int(np.ceil(edge - 0.5))) for edge in (start, start + length))
    if first >= end:
        first = min(int(start + length / 2), pixels - 1)
        end = first + 1
    return slice(first, end)


def _interpolation(at: NDArray[np.float64], cells: int) -> Heat:
    """Weights (len(at), cells) of each cell at each place; rows sum to 1."""
    place = np.clip(at, 0, cells - 1)
    first = np.minimum(place.astype(np.int64), max(0, cells - 2))
    share = (place - first).astype(np.float32)
    weights = np.zeros((len(at), cells), np.float32)
    weights[np.arange(len(at)), first] = 1 - share
    weights[np.arange(len(at)), np.minimum(first + 1, cells - 1)] += share
    return weights


def _contrast_to_noise(inside: Heat, outside: Heat) -> float:
    if not len(outside):
        return float("nan")
    noise = inside.var(dtype=np.float64) + outside.var(dtype=np.float64)
    contrast = inside.mean(dtype=np.float64) - outside.mean(dtype=np.float64)
    return float(contrast / np.sqrt(noise)) if noise > 0 else float("nan")
