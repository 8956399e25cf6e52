"""DICOM files of any encoding, parsed and decoded by pydicom.

In: a file's bytes. Out: `DataSet`: its elements as the walker would have seen them, its lookup
tables and its pixels. This is pydicom's one door.

Decoding plugins are chosen by name. JPEG-LS is decoded by CharLS (pyjpegls): it refuses a stream
that lacks part of its data, which pylibjpeg fills with something. gdcm, which pydicom would pick
first, ends the process on some damaged streams (69 of 6,104 that were tried). Parsing has a budget
of reads and every size is checked before anything allocates by it, so that a hostile file costs no
more than a large one.
"""

import io
import logging
import struct
import warnings
import zlib
from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom import config as pydicom_config
from pydicom.dataelem import RawDataElement
from pydicom.encaps import get_frame
from pydicom.pixels.decoders.base import get_decoder

from pneumonia import elements as tags
from pneumonia.codestream import (
    check_end,
    check_scans,
    check_size,
    check_tiles,
    jpeg2000_size,
    jpeg_size,
)
from pneumonia.elements import Elements, read_meta, tell
from pneumonia.errors import DicomError
from pneumonia.preprocess import Lut, Pixels

DEFLATED = "1.2.840.10008.1.2.1.99"
_IMPLICIT = "1.2.840.10008.1.2"
_EXPLICIT_LITTLE = "1.2.840.10008.1.2.1"
_EXPLICIT_BIG = "1.2.840.10008.1.2.2"
_NATIVE = frozenset([_IMPLICIT, _EXPLICIT_LITTLE, _EXPLICIT_BIG, DEFLATED])
_RLE = "1.2.840.10008.1.2.5"
_JPEG = frozenset(f"1.2.840.10008.1.2.4.{end}" for end in (51, 57, 70, 80, 81))
_JPEG_2000 = frozenset(f"1.2.840.10008.1.2.4.{end}" for end in (90, 91, 201, 202, 203))
_JPEG_LS = frozenset(f"1.2.840.10008.1.2.4.{end}" for end in (80, 81))

_MAX_INFLATED = 1 << 27  # bytes; the largest 16-bit frame that is decoded has half of that
_MAX_READS = 100_000  # of the parser, two or three an element: at most a second
_MAX_LUT = 1 << 19  # bytes of a sequence of lookup tables; one of 65,536 entries has 2 ** 17

_P = ParamSpec("_P")
_R = TypeVar("_R")

logging.getLogger("pydicom").setLevel(logging.CRITICAL)  # it logs a traceback for what we raise
pydicom_config.settings.reading_validation_mode = pydicom_config.IGNORE


def _told(reason: str, what: str) -> Callable[[Callable[_P, _R]], Callable[_P, _R]]:
    """Turn whatever pydicom and its plugins raise on broken bytes into a `DicomError`."""

    def decorate(function: Callable[_P, _R]) -> Callable[_P, _R]:
        @wraps(function)
        def call(*args: _P.args, **kwargs: _P.kwargs) -> _R:
            # What pydicom would warn of is refused here or does not touch the image. Said at
            # each call, which leaves a filter that stands as it is: test runners reset them.
            warnings.filterwarnings("ignore", module=r"pydicom\.")
            try:
                return function(*args, **kwargs)
            except DicomError:
                raise
            except BaseException as error:
                # A panic of the RLE decoder, which is written in Rust, is no Exception.
                if not isinstance(error, Exception) and type(error).__module__ != "pyo3_runtime":
                    raise
                kind = type(error).__name__
                raise DicomError(reason, f"{what} ({kind} in the reader).") from error

        return call

    return decorate


class DataSet:
    """A parsed file.

    Args:
        elements: raw values of the attributes that are read.
        transfer_syntax: its UID; for a file without meta header, of the encoding found.
        ended_early: the file ends inside an element.
    """

    def __init__(self, dataset: pydicom.Dataset, transfer_syntax: str, ended_early: bool) -> None:
        self.elements = _elements(dataset)
        self.transfer_syntax = transfer_syntax
        self.ended_early = ended_early
        stored = dataset.get("PixelData")
        self._stored = stored if isinstance(stored, bytes) else b""
        self._dataset = dataset

    @property
    def has_pixels(self) -> bool:
        """Whether there are pixel data at all."""
        return bool(self._stored)

    @_told("malformed", "The lookup table cannot be read")
    def lut(self, tag: int, index: int) -> Lut | None:
        """A lookup table (PS3.3 C.11.1.1.1, C.11.2.1.1); None where the file has none.

        Raises:
            DicomError: it has some, but not this one, or one that breaks the standard.
        """
        if tag not in self._dataset:
            return None
        raw = self._dataset.get_item(tag)
        if isinstance(raw, RawDataElement) and len(raw.value or b"") > _MAX_LUT:
            raise DicomError("malformed", f"{tell(tag)} is larger than {_MAX_LUT:,} bytes.")
        items = self._dataset[tag].value
        if not items:
            return None
        if index >= len(items):
            raise DicomError(
                "window",
                f"{tell(tag)} holds {len(items)} tables; shards.window={index} counts from 0.",
            )
        count, first, bits = (int(value) for value in items[index].LUTDescriptor)
        entries = self._entries(items[index]["LUTData"].value, count or 1 << 16, bits)
        if not 8 <= bits <= 16 or len(entries) < (count or 1 << 16):
            raise DicomError(
                "malformed",
                f"{tell(tag)} must hold {count or 1 << 16} entries of 8 to 16 bits, got "
                f"{len(entries)} of {bits}.",
            )
        if self.elements.number(tags.PIXEL_REPRESENTATION, default=0) == 0:
            first &= 0xFFFF
        return Lut(first, entries[: count or 1 << 16], bits)

    def _entries(self, data: object, count: int, bits: int) -> NDArray[np.float64]:
        """LUT Data, which may be of VR US or OW, 8-bit entries packed or not."""
        if isinstance(data, bytes):
            order = "<" if self.elements.little_endian else ">"
            packed = bits <= 8 and len(data) < 2 * count
            data = np.frombuffer(data[: len(data) & ~1], "u1" if packed else f"{order}u2")
        entries: NDArray[np.float64] = np.atleast_1d(np.asarray(data, dtype=np.float64))
        return entries

    @_told("truncated", "The pixel data end before their frame does")
    def frame(self) -> bytes:
        """The one compressed frame, its fragments joined (PS3.5 A.4)."""
        return get_frame(self._stored, 0, number_of_frames=1)

    def decode(self) -> tuple[Pixels, str]:
        """Stored pixels of a single grey frame and the name of what decoded them.

        Returns:
            (rows, columns) uint8, int8, uint16 or int16 in this machine's byte order.

        Raises:
            DicomError: another size than declared, an unknown syntax, a broken stream.
        """
        if self.transfer_syntax in _NATIVE:
            self._check_length()
        else:
            self._check_frame()
        return self._pixels()

    @_told("corrupt_stream", "The pixel data do not decode")
    def _pixels(self) -> tuple[Pixels, str]:
        native = self.transfer_syntax in _NATIVE
        syntax = _EXPLICIT_LITTLE if self.transfer_syntax == DEFLATED else self.transfer_syntax
        data_set = self._dataset
        data_set.file_meta.TransferSyntaxUID = pydicom.uid.UID(syntax)
        data_set.NumberOfFrames = 1
        plugin = "" if native else "pyjpegls" if syntax in _JPEG_LS else "pylibjpeg"
        decoder = get_decoder(syntax)
        pixels, _ = decoder.as_array(data_set, index=0, raw=True, decoding_plugin=plugin)
        if pixels.ndim != 2 or pixels.dtype.itemsize > 2:
            raise DicomError(
                "depth", f"The frame decoded to {pixels.dtype} {pixels.shape}, expected 16 bits."
            )
        return pixels.astype(pixels.dtype.newbyteorder("="), copy=False), plugin or "native"

    def _check_length(self) -> None:
        """Uncompressed pixel data must be as long as the header says."""
        rows, columns = self.elements.number(tags.ROWS), self.elements.number(tags.COLUMNS)
        expected = rows * columns * self.elements.number(tags.BITS_ALLOCATED) // 8
        actual = len(self._stored)
        if actual < expected:
            raise DicomError(
                "truncated",
                f"{tell(tags.PIXEL_DATA)} must hold {expected:,} bytes, got {actual:,}.",
            )

    def _check_frame(self) -> None:
        """A compressed frame must declare the size that the header says."""
        rows, columns = self.elements.number(tags.ROWS), self.elements.number(tags.COLUMNS)
        if self.transfer_syntax in _JPEG:
            frame = self.frame()
            check_size(jpeg_size(frame), rows, columns)
            check_scans(frame)
            check_end(frame)
        elif self.transfer_syntax in _JPEG_2000:
            frame = self.frame()
            check_size(jpeg2000_size(frame), rows, columns)
            check_tiles(frame)
        elif self.transfer_syntax == _RLE:
            self._check_segments(self.frame())
        else:
            raise DicomError(
                "syntax",
                f"{tell(tags.TRANSFER_SYNTAX)} must be one with a decoder here, got "
                f"{self.transfer_syntax[:64]!r}.",
            )

    def _check_segments(self, frame: bytes) -> None:
        """An RLE frame has a segment per byte of a pixel (PS3.5 G.5)."""
        expected = self.elements.number(tags.BITS_ALLOCATED) // 8
        found = struct.unpack_from("<L", frame)[0] if len(frame) >= 64 else 0
        if found != expected:
            raise DicomError(
                "corrupt_stream", f"The RLE frame must have {expected} segments, got {found}."
            )


class _Budgeted(io.BytesIO):
    """Bytes for the parser, which must not read without end, nor past the end unnoticed."""

    reads = 0
    ended_early = False

    def read(self, size: int | None = -1, /) -> bytes:
        """Read and count."""
        self.reads += 1
        if self.reads > _MAX_READS:
            raise EOFError
        value = super().read(size)
        if size is not None and len(value) < size and (value or size != 8):
            self.ended_early = True
        return value


@_told("malformed", "The data set cannot be parsed")
def parse(data: bytes) -> DataSet:
    """Parse a file, with or without meta header.

    Raises:
        DicomError: the bytes are no DICOM file, or one that cannot be parsed.
    """
    syntax, begin = read_meta(data)
    if not begin and data[:2] not in {b"\x02\x00", b"\x08\x00", b"\x00\x08"}:
        raise DicomError("not_dicom", "The bytes begin neither with a DICOM header nor a data set.")
    dataset, ended_early = _load(_inflate(data, begin) if syntax == DEFLATED else data)
    syntax = syntax or str(dataset.file_meta.get("TransferSyntaxUID", ""))
    if not syntax:  # demanded by PS3.10, absent from files that are older than it
        implicit, little = dataset.original_encoding
        syntax = _IMPLICIT if implicit else _EXPLICIT_LITTLE if little else _EXPLICIT_BIG
    return DataSet(dataset, syntax, ended_early)


def _load(data: bytes) -> tuple[pydicom.Dataset, bool]:
    """The data set as far as it goes, and whether the file ends inside an element."""
    source, dataset = _Budgeted(data), None
    try:
        dataset = pydicom.dcmread(source, force=True, specific_tags=[*tags.READ])
    except Exception:
        if source.reads <= _MAX_READS and source.tell() < len(data):
            raise
    if source.reads > _MAX_READS:
        raise DicomError("malformed", f"The data set takes over {_MAX_READS:,} reads to parse.")
    if dataset is None:
        raise DicomError("truncated", "The file ends inside its data set.")
    return dataset, source.ended_early


def _inflate(data: bytes, begin: int) -> bytes:
    """A deflated file (PS3.5 A.5) as a plain one, within a bound."""
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        plain = inflater.decompress(data[begin:], _MAX_INFLATED)
    except zlib.error as error:
        raise DicomError("corrupt_stream", f"The deflated data set is broken: {error}.") from error
    if inflater.unconsumed_tail:
        raise DicomError(
            "too_large", f"The deflated data set is larger than {_MAX_INFLATED:,} bytes."
        )
    if not inflater.eof:
        raise DicomError("truncated", "The deflated data set ends before its end.")
    meta = data[:begin].replace(DEFLATED.encode(), _EXPLICIT_LITTLE.encode().ljust(22, b"\0"))
    return meta + plain


def _elements(dataset: pydicom.Dataset) -> Elements:
    values: dict[int, bytes] = {}
    for tag in tags.READ & dataset.keys():
        item = dataset.get_item(tag)
        value = item.value if isinstance(item, RawDataElement) else b""
        values[tag] = value if isinstance(value, bytes) and tag != tags.PIXEL_DATA else b""
    return Elements(values, little_endian=bool(dataset.original_encoding[1]))
