"""Augmentation: one affine matrix, one contrast and one brightness per training image.

The draws are made for a whole epoch at once; two back ends apply them, OpenCV on uint8 images
and torch on a batch on any device, and agree to the rounding of the former.
"""

from dataclasses import dataclass

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import grid_sample

Images = NDArray[np.uint8]
Floats = NDArray[np.float64]

# Ranges at strength 1, both ways. Half of them is what training uses: tilt and size as they vary
# between films, and a shift over the margin that a crop of 7/8 leaves.
MAX_ANGLE = np.deg2rad(20)
MAX_LOG_SCALE = 0.25
MAX_SHIFT = 1 / 8  # of the image's side
MAX_LOG_CONTRAST = 0.4
MAX_BRIGHTNESS = 40.0  # grey levels


@dataclass(frozen=True)
class Changes:
    """What happens to each of n images.

    Args:
        matrices: (n, 2, 3), from a pixel (x, y, 1) of the crop to one (x, y) of the image.
        contrast: (n,), a factor about mid-grey.
        brightness: (n,), grey levels, added.
    """

    matrices: Floats
    contrast: Floats
    brightness: Floats

    def __getitem__(self, part: slice) -> "Changes":
        """The changes of some of the images."""
        return Changes(self.matrices[part], self.contrast[part], self.brightness[part])


def draw(
    generator: np.random.Generator, n: int, *, side: int, crop: int, strength: float, flip: bool
) -> Changes:
    """Draw the changes of n images; the same generator state gives the same ones.

    Args:
        side: of the square images, pixels.
        crop: side of the square that comes out, pixels.
        strength: 0 takes the central crop as it is, 1 changes it strongly.
        flip: mirror half of the images.
    """
    angle, log_scale, shift_x, shift_y, log_contrast, brightness = strength * generator.uniform(
        -1, 1, size=(6, n)
    )
    mirror = np.where((generator.random(n) < 0.5) & flip, -1.0, 1.0)
    cos, sin = np.cos(MAX_ANGLE * angle), np.sin(MAX_ANGLE * angle)
    scale = np.exp(MAX_LOG_SCALE * log_scale)
    turn = np.stack([[cos * mirror, -sin], [sin * mirror, cos]]) * scale  # (2, 2, n)
    # The crop's centre goes to the image's centre, shifted; pixel centres have whole coordinates.
    shift = MAX_SHIFT * side * np.stack([shift_x, shift_y])  # (2, n)
    move = (side - 1) / 2 + shift - turn.sum(axis=1) * (crop - 1) / 2
    return Changes(
        np.concatenate([turn, move[:, None]], axis=1).transpose(2, 0, 1).copy(),
        np.exp(MAX_LOG_CONTRAST * log_contrast),
        MAX_BRIGHTNESS * brightness,
    )


def warp(images: Images, matrices: Floats, crop: int) -> Images:
    """Cut each image's crop by bilinear interpolation, black beyond the border (OpenCV).

    Args:
        images: (n, side, side).
        matrices: (n, 2, 3) of `Changes`.

    Returns:
        (n, crop, crop)
    """
    out = np.empty((len(images), crop, crop), dtype=np.uint8)
    for image, matrix, target in zip(images, matrices, out, strict=True):
        cv2.warpAffine(
            image,
            matrix,
            (crop, crop),
            dst=target,
            flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
            borderMode=cv2.BORDER_CONSTANT,
            borderValue=0,
        )
    return out


def look_up(images: Images, tables: NDArray[np.float32], out: NDArray[np.float32]) -> None:
    """Replace each grey level by its entry in the image's own table (OpenCV).

    What is done to every pixel of an image alike is done to 256 numbers instead, and comes out
    equal bit by bit.

    Args:
        images: (n, h, w).
        tables: (n, 256).
        out: (n, h, w), filled.
    """
    for image, table, target in zip(images, tables, out, strict=True):
        cv2.LUT(image, table[None], dst=target)


def warp_tensor(images: Tensor, matrices: Tensor, crop: int) -> Tensor:
    """`warp` for a whole batch on its device, without rounding.

    Args:
        images: (n, side, side), any type.
        matrices: (n, 2, 3) of `Changes`, float32.

    Returns:
        (n, crop, crop) grey levels, float32.
    """
    along = torch.arange(crop, dtype=torch.float32, device=images.device)
    y, x = torch.meshgrid(along, along, indexing="ij")
    pixels = torch.stack([x, y, torch.ones_like(x)], dim=-1)  # (crop, crop, 3)
    places = torch.einsum("hwk,njk->nhwj", pixels, matrices)  # (n, crop, crop, 2)
    # grid_sample counts from -1 to 1 between the outer edges of the outer pixels.
    grid = (2 * places + 1) / images.shape[-1] - 1
    grey = images.unsqueeze(1).to(torch.float32)
    sampled = grid_sample(grey, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
    return sampled.squeeze(1)


def relight(grey: Tensor, contrast: Tensor, brightness: Tensor) -> Tensor:
    """Change contrast about mid-grey, then brightness.

    Args:
        grey: (n, h, w) grey levels; the result may leave 0 to 255.
        contrast, brightness: (n,) of `Changes`.
    """
    mid = 127.5
    factor, shift = contrast[:, None, None], brightness[:, None, None]
    # In place: a batch's temporaries go back to the system and come again as page faults. With
    # three of them this took 0.28 ms an image of 224 px on one core, with one 0.06.
    return (grey - mid).mul_(factor).add_(mid + shift)
