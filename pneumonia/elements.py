"""The elements of a DICOM file, read straight from its bytes.

In: a file's bytes. Out: the raw values of the few attributes that this project reads, and for the
plainest encoding (explicit VR little endian, one JPEG fragment: how the challenge's files are
written) the place of that fragment. Both readers, this walker and pydicom's parser, end in the
same `Elements`, so that a header is understood in one place only.

The walker is an optimisation: it returns None at the first thing it does not expect, and the file
is then parsed by pydicom.
"""

import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass

from pneumonia.errors import DicomError

TRANSFER_SYNTAX = 0x00020010
SERIES_DESCRIPTION = 0x0008103E
MODALITY = 0x00080060
PATIENT_ID = 0x00100020
PATIENT_SEX = 0x00100040
PATIENT_AGE = 0x00101010
BODY_PART = 0x00180015
IMAGER_PIXEL_SPACING = 0x00181164
VIEW_POSITION = 0x00185101
SAMPLES_PER_PIXEL = 0x00280002
PHOTOMETRIC = 0x00280004
NUMBER_OF_FRAMES = 0x00280008
ROWS = 0x00280010
COLUMNS = 0x00280011
PIXEL_SPACING = 0x00280030
BITS_ALLOCATED = 0x00280100
BITS_STORED = 0x00280101
HIGH_BIT = 0x00280102
PIXEL_REPRESENTATION = 0x00280103
PIXEL_PADDING_VALUE = 0x00280120
PIXEL_PADDING_LIMIT = 0x00280121
WINDOW_CENTER = 0x00281050
WINDOW_WIDTH = 0x00281051
RESCALE_INTERCEPT = 0x00281052
RESCALE_SLOPE = 0x00281053
VOI_FUNCTION = 0x00281056
MODALITY_LUT = 0x00283000
VOI_LUT = 0x00283010
PIXEL_DATA = 0x7FE00010

READ = frozenset(
    value for name, value in globals().items() if name.isupper() and isinstance(value, int)
)
"""Every attribute that is read; all others are passed over."""

_LONG_FORMS = frozenset(
    [b"OB", b"OW", b"OF", b"OD", b"OL", b"OV", b"SQ", b"UC", b"UN", b"UR", b"UT", b"SV", b"UV"]
)  # PS3.5 7.1.2: four bytes of length after two reserved ones
_UNDEFINED = 0xFFFFFFFF
_ITEM = b"\xfe\xff\x00\xe0"
_SEQUENCE_END = b"\xfe\xff\xdd\xe0\x00\x00\x00\x00"
_MAX_ELEMENTS = 4096  # the challenge's files have 45

_element = struct.Struct("<HH2sH").unpack_from
_length = struct.Struct("<L").unpack_from


@dataclass(frozen=True)
class Elements:
    """Raw values by tag, as they stand in the file.

    Args:
        values: tag to bytes; sequences are present with empty bytes.
        little_endian: byte order of binary values.
        pixel_data: (start, stop) of the only fragment, where the walker found one.
    """

    values: Mapping[int, bytes]
    little_endian: bool = True
    pixel_data: tuple[int, int] | None = None

    def __contains__(self, tag: int) -> bool:
        return tag in self.values

    def text(self, tag: int) -> str:
        """First value as text without padding; empty where absent.

        >>> Elements({MODALITY: b"CR "}).text(MODALITY)
        'CR'
        """
        value = self.values.get(tag, b"")
        try:
            text = value.decode("utf-8")
        except UnicodeDecodeError:
            text = value.decode("latin-1")
        return text.partition("\\")[0].strip(" \0\t\r\n")

    def number(self, tag: int, default: int | None = None) -> int:
        """An unsigned 16-bit value (VR US); `default` where absent.

        Raises:
            DicomError: absent without a default, or not two bytes long.
        """
        value = self.values.get(tag, b"")
        if not value and default is not None:
            return default
        if len(value) != 2:
            raise DicomError(
                "malformed", f"{tell(tag)} must be one 16-bit number, got {len(value)} bytes."
            )
        return int.from_bytes(value, "little" if self.little_endian else "big")

    def decimals(self, tag: int) -> list[float]:
        """Values of a decimal string (VR DS or IS); empty where absent.

        Raises:
            DicomError: a value is no finite number. It is not told: a writer that mixes up its
                fields leaves anything there, a patient's name too.
        """
        value = self.values.get(tag, b"")
        text = value.decode("latin-1").strip(" \0\t\r\n")
        try:
            numbers = [float(part) for part in text.split("\\")] if text else []
        except ValueError:
            numbers = [math.nan]
        if not all(math.isfinite(number) for number in numbers):
            raise DicomError(
                "malformed", f"{tell(tag)} must hold decimal numbers, got {len(value)} other bytes."
            )
        return numbers


def walk(data: bytes) -> Elements | None:
    """Read a file in explicit VR little endian whose pixel data are one fragment.

    Args:
        data: the whole file.

    Returns:
        The elements with `pixel_data`, or None where anything is otherwise.
    """
    if data[128:132] != b"DICM":
        return None
    values: dict[int, bytes] = {}
    position, last = 132, 0
    try:
        for _ in range(_MAX_ELEMENTS):
            group, number, form, size = _element(data, position)
            tag = group << 16 | number
            if tag <= last:
                return None  # PS3.5 7.1: ascending order, each tag once
            last = tag
            position += 8
            if form in _LONG_FORMS:
                (size,) = _length(data, position)
                position += 4
            if tag == PIXEL_DATA:
                fragment = _only_fragment(data, position) if size == _UNDEFINED else None
                return fragment and Elements(values, pixel_data=fragment)
            if size == _UNDEFINED:
                return None
            if tag in READ:
                values[tag] = data[position : position + size]
            position += size
    except struct.error:
        pass  # the file ends inside an element
    return None


def read_meta(data: bytes) -> tuple[str, int]:
    """The transfer syntax that a file's meta header names, and where its data set begins.

    Returns:
        An empty string and 0 where there is no meta header.
    """
    if data[128:132] != b"DICM":
        return "", 0
    syntax, position = "", 132
    try:
        while data[position : position + 2] == b"\x02\x00":
            group, number, form, size = _element(data, position)
            position += 8
            if form in _LONG_FORMS:
                (size,) = _length(data, position)
                position += 4
            if group << 16 | number == TRANSFER_SYNTAX:
                syntax = data[position : position + size].decode("latin-1").strip(" \0")
            position += size
    except struct.error:
        pass  # told as truncated by the reader of the data set
    return syntax, position


def tell(tag: int) -> str:
    """A tag as it is written in the standard, with its name.

    >>> tell(PHOTOMETRIC)
    '(0028,0004) Photometric Interpretation'
    """
    return f"({tag >> 16:04X},{tag & 0xFFFF:04X}) {_NAMES.get(tag, '')}".rstrip()


def _only_fragment(data: bytes, position: int) -> tuple[int, int] | None:
    """Where the one fragment of encapsulated pixel data lies (PS3.5 A.4)."""
    if data[position : position + 4] != _ITEM:
        return None
    (table_size,) = _length(data, position + 4)  # the basic offset table
    position += 8 + table_size
    if data[position : position + 4] != _ITEM:
        return None
    (size,) = _length(data, position + 4)
    start, stop = position + 8, position + 8 + size
    return (start, stop) if data[stop : stop + 8] == _SEQUENCE_END else None


_NAMES = {
    MODALITY: "Modality",
    BODY_PART: "Body Part Examined",
    SAMPLES_PER_PIXEL: "Samples per Pixel",
    PHOTOMETRIC: "Photometric Interpretation",
    NUMBER_OF_FRAMES: "Number of Frames",
    ROWS: "Rows",
    COLUMNS: "Columns",
    BITS_ALLOCATED: "Bits Allocated",
    BITS_STORED: "Bits Stored",
    HIGH_BIT: "High Bit",
    PIXEL_REPRESENTATION: "Pixel Representation",
    PIXEL_PADDING_VALUE: "Pixel Padding Value",
    PIXEL_PADDING_LIMIT: "Pixel Padding Range Limit",
    WINDOW_CENTER: "Window Center",
    WINDOW_WIDTH: "Window Width",
    RESCALE_INTERCEPT: "Rescale Intercept",
    RESCALE_SLOPE: "Rescale Slope",
    VOI_FUNCTION: "VOI LUT Function",
    MODALITY_LUT: "Modality LUT Sequence",
    VOI_LUT: "VOI LUT Sequence",
    TRANSFER_SYNTAX: "Transfer Syntax UID",
    PIXEL_DATA: "Pixel Data",
}
