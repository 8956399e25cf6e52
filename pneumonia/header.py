"""The header of a radiograph: what the pipeline keeps of it, and which files it takes.

In: the elements of a file. Out: `Header`, or a `DicomError` whose sentence names the tag and the
value. No value that could name a patient stands in an error.
"""

import re
from collections.abc import Collection
from dataclasses import dataclass

from pneumonia import elements as tags
from pneumonia.elements import Elements, tell
from pneumonia.errors import DicomError

MAX_PIXELS = 1 << 25
"""Largest frame that is decoded; the largest flat detectors have 18.5 million pixels
(4300 x 4300)."""

ANY = "*"
"""In `accept`: any modality, any body part."""

_CHEST = ("CHEST", "THORAX", "TORAX", "LUNG", "RIB")  # within PS3.16 table L-1's and common terms
_DAYS_PER_YEAR = 365.25
_YEARS = {"": 1.0, "Y": 1.0, "M": 1 / 12, "W": 7 / _DAYS_PER_YEAR, "D": 1 / _DAYS_PER_YEAR}
_AGE = re.compile(r"(\d{1,4})([YMWD]?)")
_VIEW = re.compile(r"view:\s*(\w+)", re.IGNORECASE)
_PRINTABLE = re.compile(r"[^ -~]")


@dataclass(frozen=True)
class Header:
    """What is kept of a file's header.

    Args:
        rows: of the original frame; with `columns`, in pixels.
        view: (0018,5101) View Position in capitals, `PA`, `AP` or as it stands.
        sex: `F`, `M` or `O`.
        age: years, as it stands, be it 150.
        spacing: millimetres from one row to the next.
        patient: (0010,0020) Patient ID, to be compared with the file's name and then dropped.
    """

    rows: int
    columns: int
    view: str | None
    sex: str | None
    age: float | None
    spacing: float | None
    modality: str
    photometric: str
    bits_stored: int
    transfer_syntax: str
    patient: str


def read_header(elements: Elements, transfer_syntax: str) -> Header:
    """Understand the elements of a file.

    Raises:
        DicomError: the frame's description is malformed.
    """
    sex = elements.text(tags.PATIENT_SEX).upper()
    return Header(
        rows=elements.number(tags.ROWS),
        columns=elements.number(tags.COLUMNS),
        view=_view(elements),
        sex=sex if sex in {"F", "M", "O"} else None,
        age=parse_age(elements.text(tags.PATIENT_AGE)),
        spacing=_spacing(elements),
        modality=_word(elements.text(tags.MODALITY)),
        photometric=_word(elements.text(tags.PHOTOMETRIC)),
        bits_stored=elements.number(tags.BITS_STORED),
        transfer_syntax=transfer_syntax,
        patient=elements.text(tags.PATIENT_ID),
    )


def check_accepted(elements: Elements, accept: Collection[str]) -> None:
    """Refuse what is no single grey radiograph of a chest.

    Args:
        accept: values of Modality; `*` takes any modality and body part.

    Raises:
        DicomError: with the tag and the value.
    """
    modality = _word(elements.text(tags.MODALITY))
    if ANY not in accept:
        if modality not in accept:
            raise _unlike("modality", tags.MODALITY, f"be one of {', '.join(accept)}", modality)
        part = _word(elements.text(tags.BODY_PART))
        if part and not any(word in part for word in _CHEST):
            raise _unlike("body_part", tags.BODY_PART, "name the chest or be absent", part)
    photometric = _word(elements.text(tags.PHOTOMETRIC))
    samples = elements.number(tags.SAMPLES_PER_PIXEL, default=1)
    if samples != 1:
        raise _unlike("colour", tags.SAMPLES_PER_PIXEL, "be 1", samples)
    if photometric not in {"MONOCHROME1", "MONOCHROME2"}:
        raise _unlike("colour", tags.PHOTOMETRIC, "be MONOCHROME1 or MONOCHROME2", photometric)
    frames = elements.decimals(tags.NUMBER_OF_FRAMES)
    if frames and frames[0] not in {0.0, 1.0}:  # 0 stands in single-frame files of some writers
        raise _unlike("multi_frame", tags.NUMBER_OF_FRAMES, "be 1", f"{frames[0]:g}")
    _check_depth(elements)
    _check_size(elements)


def parse_age(text: str) -> float | None:
    """Age in years; None where there is none to read.

    The challenge's files hold `59` where the standard (PS3.5 6.2, AS) asks for `059Y`.

    >>> [parse_age(text) for text in ("059Y", "6M", "59", "150", "", "old")]
    [59.0, 0.5, 59.0, 150.0, None, None]
    """
    match = _AGE.fullmatch(text.upper())
    return float(match[1]) * _YEARS[match[2]] if match else None


def _check_depth(elements: Elements) -> None:
    allocated = elements.number(tags.BITS_ALLOCATED)
    stored = elements.number(tags.BITS_STORED)
    high = elements.number(tags.HIGH_BIT, default=stored - 1)
    signed = elements.number(tags.PIXEL_REPRESENTATION, default=0)
    if allocated not in {8, 16}:
        raise _unlike("depth", tags.BITS_ALLOCATED, "be 8 or 16", allocated)
    if not 8 <= stored <= allocated:
        raise _unlike("depth", tags.BITS_STORED, f"be in 8..{allocated}", stored)
    if high != stored - 1:  # PS3.5 8.1.1
        raise _unlike("depth", tags.HIGH_BIT, f"be {stored - 1}", high)
    if signed not in {0, 1}:
        raise _unlike("malformed", tags.PIXEL_REPRESENTATION, "be 0 or 1", signed)


def _check_size(elements: Elements) -> None:
    rows, columns = elements.number(tags.ROWS), elements.number(tags.COLUMNS)
    if rows < 1 or columns < 1 or rows * columns > MAX_PIXELS:
        raise DicomError(
            "size",
            f"(0028,0010) Rows x (0028,0011) Columns must be in 1..{MAX_PIXELS:,} pixels, "
            f"got {rows} x {columns}.",
        )


def _view(elements: Elements) -> str | None:
    """The view position; where it is empty, the `view: PA` of the series description."""
    view = _word(elements.text(tags.VIEW_POSITION))
    if not view and (match := _VIEW.search(elements.text(tags.SERIES_DESCRIPTION))):
        view = match[1].upper()
    return view or None


def _spacing(elements: Elements) -> float | None:
    """Row spacing: of the patient's plane where it is known, else of the detector's."""
    for tag in (tags.PIXEL_SPACING, tags.IMAGER_PIXEL_SPACING):
        try:
            values = elements.decimals(tag)
        except DicomError:
            continue  # an unreadable spacing loses a figure, not an image
        if values and values[0] > 0.0:
            return values[0]
    return None


def _word(text: str) -> str:
    """A code string as it may stand in a table or a sentence: capitals, printable, short."""
    return _PRINTABLE.sub("?", text)[:32].upper()


def _unlike(reason: str, tag: int, expected: str, got: object) -> DicomError:
    shown = "nothing" if got == "" else repr(got)
    return DicomError(reason, f"{tell(tag)} must {expected}, got {shown}.")
