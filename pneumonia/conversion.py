"""One DICOM file to one stored image and its row: what a shard and a prediction have in common.

In: a file's bytes. Out: (side, side) uint8 and the columns that are known of it, or the reason why
there is no image.
"""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pneumonia.dicom import read
from pneumonia.errors import DicomError
from pneumonia.files import digest
from pneumonia.preprocess import fit, geometry, render

TEXT = ("view", "sex", "modality", "photometric", "transfer_syntax", "decoder")
DECIMALS = ("scale", "offset_x", "offset_y", "age", "spacing")
COUNTS = ("rows", "columns", "bits_stored")
COLUMNS = (
    "pixel_digest", "rows", "columns", "scale", "offset_x", "offset_y", "view", "sex", "age",
    "spacing", "modality", "photometric", "bits_stored", "transfer_syntax", "patient_differs",
    "decoder",
)  # fmt: skip
"""What a conversion finds out about an image, in the order of `images.parquet`."""

Row = dict[str, Any]


@dataclass(frozen=True)
class Recipe:
    """The settings that change an image's bytes."""

    side: int
    accept: Collection[str]
    window: int


def convert(data: bytes, image_id: str, recipe: Recipe) -> tuple[NDArray[np.uint8], Row]:
    """Convert one file.

    Args:
        data: the whole file.
        image_id: the file's stem, to be compared with its Patient ID.

    Returns:
        (side, side) uint8 in one piece, and a value per name of `COLUMNS`.

    Raises:
        DicomError: the file cannot become an image.
    """
    film = read(data, accept=recipe.accept, window=recipe.window, side=recipe.side)
    header = film.header
    image = np.ascontiguousarray(fit(render(film.pixels, film.rule), recipe.side, film.scale))
    row = vars(header) | vars(geometry(header.rows, header.columns, recipe.side))
    patient = row.pop("patient")
    return image, row | {
        "pixel_digest": digest(image.data, recipe.side.to_bytes(4, "little")),
        "patient_differs": bool(patient) and patient != image_id,
        "decoder": film.decoder,
    }


def refused(error: DicomError) -> Row:
    """The row of a file without an image."""
    return {"reason": error.reason, "detail": error.detail}
