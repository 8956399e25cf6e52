"""Compressed frames: what they say of their size, and the scaled JPEG decoder.

In: one encoded frame. Out: its declared size, read before any decoder allocates, or its pixels.
A frame that declares another size than its DICOM header is refused: the decoder would allocate by
the frame's own word.
"""

import struct
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import simplejpeg  # type: ignore[import-untyped]
from numpy.typing import NDArray

from pneumonia.errors import DicomError

SCALES = (8, 4, 2, 1)
"""Divisors at which libjpeg decodes from the DCT coefficients so that each pixel is the mean of
its block. The scales between them (3/8, 5/8, ...) are not means."""

_BASELINE = 0xC0
_FRAME_MARKERS = frozenset(
    [*range(0xC0, 0xC4), *range(0xC5, 0xC8), *range(0xC9, 0xCC), *range(0xCD, 0xD0), 0xF7]
)  # SOFn of ITU-T T.81 B.1.1.3; T.87 C.1.1
_MAX_TILES = 65_535  # T.800 A.5.1
_TAIL = 64  # bytes that may follow the end of a stream, padding mostly
_MAX_SCANS = 64  # a baseline grey frame has one; a progressive one some ten


@dataclass(frozen=True)
class FrameSize:
    """What a frame's own header declares.

    Args:
        precision: bits per sample.
        process: the JPEG marker that begins the frame header; 0 for JPEG 2000.
    """

    rows: int
    columns: int
    components: int
    precision: int
    process: int = 0


def jpeg_size(frame: bytes | memoryview) -> FrameSize:
    """Read the frame header of a JPEG or JPEG-LS stream (ITU-T T.81 B.2.2).

    Raises:
        DicomError: there is none.
    """
    if frame[:2] != b"\xff\xd8":
        raise DicomError("corrupt_stream", "The JPEG stream does not begin with its SOI marker.")
    position = 2
    try:
        while True:
            prefix, marker, length = struct.unpack_from(">BBH", frame, position)
            if prefix != 0xFF:
                break
            if marker == 0xFF:
                position += 1  # a fill byte
                continue
            if marker in _FRAME_MARKERS:
                precision, rows, columns, components = struct.unpack_from(
                    ">BHHB", frame, position + 4
                )
                return FrameSize(rows, columns, components, precision, marker)
            position += 2 + length
    except struct.error:
        pass
    raise DicomError("corrupt_stream", "The JPEG stream ends or breaks before its frame header.")


def jpeg2000_size(frame: bytes) -> FrameSize:
    """Read the SIZ segment of a JPEG 2000 codestream, bare or in JP2 boxes (T.800 A.5.1).

    Raises:
        DicomError: there is none.
    """
    size = _Siz.of(frame)
    return FrameSize(size.bottom - size.top, size.right - size.left, size.components, size.bits)


def check_tiles(frame: bytes) -> None:
    """Refuse a JPEG 2000 codestream without all its tiles, whose decoder would leave them black.

    Raises:
        DicomError: tiles are missing, cut short, or more than a decoder allows.
    """
    size = _Siz.of(frame)
    across = _tiles(size.right - size.tile_left, size.tile_width)
    down = _tiles(size.bottom - size.tile_top, size.tile_height)
    if not 1 <= across * down <= _MAX_TILES:
        raise DicomError(
            "corrupt_stream",
            f"The JPEG 2000 stream must have 1 to {_MAX_TILES:,} tiles, got {across} x {down}.",
        )
    found: set[int] = set()
    position = size.end
    try:
        while (marker := frame[position : position + 2]) not in {b"\xff\xd9", b""}:
            (length,) = struct.unpack_from(">H", frame, position + 2)
            if marker == b"\xff\x90":  # SOT, A.4.2: index and length of a tile-part
                index, part = struct.unpack_from(">HL", frame, position + 4)
                found.add(index)
                length = (part or len(frame) - position) - 2  # 0: up to the end
            position += 2 + max(length, 2)
    except struct.error:
        position = len(frame) + 1
    if len(found) < across * down or position > len(frame):
        raise DicomError(
            "truncated",
            f"The JPEG 2000 stream must hold {across * down} whole tiles, got {len(found)}"
            f"{' and ends inside the last' if position > len(frame) else ''}.",
        )


def _tiles(length: int, tile: int) -> int:
    return -(-length // tile) if tile else 0


class _Siz(NamedTuple):
    """The SIZ segment: the frame's edges on the reference grid and its tiles."""

    right: int
    bottom: int
    left: int
    top: int
    tile_width: int
    tile_height: int
    tile_left: int
    tile_top: int
    components: int
    bits: int
    end: int

    @classmethod
    def of(cls, frame: bytes) -> "_Siz":
        start = frame.find(b"\xff\x4f\xff\x51")
        try:
            if start < 0:
                raise struct.error
            (length,) = struct.unpack_from(">H", frame, start + 4)
            *edges, components, precision = struct.unpack_from(">8LHB", frame, start + 8)
        except struct.error:
            raise DicomError(
                "corrupt_stream", "The JPEG 2000 stream has no SIZ segment after its SOC marker."
            ) from None
        return cls._make([*edges, components, (precision & 0x7F) + 1, start + 4 + length])


def check_size(found: FrameSize, rows: int, columns: int) -> None:
    """Refuse a frame whose own size differs from its DICOM header's.

    Raises:
        DicomError: it does, or it is not grey.
    """
    if (found.rows, found.columns) != (rows, columns):
        raise DicomError(
            "size_mismatch",
            f"The header declares {columns} x {rows} pixels (columns x rows), the compressed "
            f"frame {found.columns} x {found.rows}.",
        )
    if found.components != 1:
        raise DicomError(
            "colour", f"The compressed frame must have 1 component, got {found.components}."
        )


def scale_for(rows: int, columns: int, side: int) -> int:
    """The largest divisor that costs no exactness on the way to `side` pixels.

    It must divide both sides, or the last blocks mix with what lies beyond the frame; and it must
    end at `side` itself or at twice as much: from 1024 to 224 by way of 256 the mean error is
    0.52 grey levels (largest 32), by way of 512 it is 0.25 (largest 7).

    >>> scale_for(1024, 1024, 256), scale_for(1024, 1024, 224), scale_for(1023, 1024, 256)
    (4, 2, 1)
    """
    longest = max(rows, columns)
    for scale in SCALES:
        divides = rows % scale == columns % scale == 0
        if divides and (longest == side * scale or longest >= 2 * side * scale):
            return scale
    return 1


def decode_jpeg(
    frame: bytes | memoryview, rows: int, columns: int, scale: int
) -> NDArray[np.uint8]:
    """Decode a grey 8-bit JPEG at 1/scale of its size.

    A stream that libjpeg only decodes with a warning (it ended early, or a Huffman code does not
    exist) has lost pixels and is refused; most readers fill them with grey in silence.

    Returns:
        (rows / scale, columns / scale) uint8.

    Raises:
        DicomError: the stream is broken.
    """
    height, width = rows // scale, columns // scale
    try:
        image: NDArray[np.uint8] = simplejpeg.decode_jpeg(
            frame, "GRAY", min_height=height, min_width=width, min_factor=1, strict=True
        )[:, :, 0]
    except ValueError as error:
        raise DicomError("corrupt_stream", f"The JPEG stream does not decode: {error}.") from error
    if image.shape != (height, width):
        raise DicomError(
            "corrupt_stream",
            f"The JPEG stream decoded to {image.shape}, expected {(height, width)}.",
        )
    return image


def check_8_bits(frame: bytes | memoryview, rows: int, columns: int, bits_stored: int) -> None:
    """Refuse a frame that is not the grey 8-bit JPEG its DICOM header declares.

    Raises:
        DicomError: it is not.
    """
    found = jpeg_size(frame)
    check_size(found, rows, columns)
    if found.precision != 8 or bits_stored != 8:
        raise DicomError(
            "depth",
            f"JPEG frame ({found.precision}) and (0028,0101) Bits Stored ({bits_stored}) must "
            "both be 8.",
        )
    if found.process != _BASELINE:
        check_scans(frame)


def check_scans(frame: bytes | memoryview) -> None:
    """Refuse a progressive stream that repeats its scans without end: each costs a whole pass.

    Raises:
        DicomError: it has more scans than any encoder writes.
    """
    scans = bytes(frame).count(b"\xff\xda")
    if scans > _MAX_SCANS:
        raise DicomError(
            "corrupt_stream", f"The JPEG stream has {scans} scans; at most {_MAX_SCANS} are read."
        )


def check_end(frame: bytes) -> None:
    """Refuse a JPEG stream without its end: not every decoder says that pixels are missing.

    Raises:
        DicomError: no EOI marker stands at its end.
    """
    if b"\xff\xd9" not in frame[-_TAIL:]:
        raise DicomError("truncated", "The JPEG stream ends without its EOI marker.")
