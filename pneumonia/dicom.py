"""One DICOM file's bytes to its stored pixels, header and grey rule.

In: the bytes of a file, which may be anything. Out: `Radiograph`, or a `DicomError` with one word
of `REASONS` and a sentence.

The challenge's own encoding is read by a walk over its elements, every other one by pydicom's
parser; both end in the same elements, so header, acceptance and grey rule are decided once. JPEG
Baseline is decoded by libjpeg-turbo, scaled where that costs no exactness; everything else by a
plugin of pydicom chosen by name. Sizes are checked before anything allocates by them.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import get_args

from pneumonia import elements as tags
from pneumonia.codestream import check_8_bits, decode_jpeg, jpeg_size, scale_for
from pneumonia.elements import Elements, tell, walk
from pneumonia.errors import DicomError
from pneumonia.header import Header, check_accepted, read_header
from pneumonia.parser import DataSet, parse
from pneumonia.preprocess import GreyRule, Lut, Pixels, Window, WindowFunction

REASONS: Mapping[str, str] = MappingProxyType(
    {
        "unreadable": "the file could not be opened or read",
        "not_a_file": "a pipe, device, socket or folder stands where a file should",
        "link_loop": "a symbolic link leads back to itself or to nothing",
        "name": "the file's name is no text that a table can hold",
        "duplicate": "two files have the same stem, so the image has two contents",
        "unsettled": "the file was still being written",
        "changed": "the file changed while it was being converted",
        "too_large": "the file is larger than any radiograph",
        "not_dicom": "the bytes are no DICOM file",
        "truncated": "the file ends before its pixel data do",
        "malformed": "the data set breaks the standard where it must be read",
        "no_pixels": "the file holds no image",
        "modality": "not a modality that is accepted",
        "body_part": "another body part than the chest",
        "colour": "not one grey sample per pixel",
        "multi_frame": "more than one frame",
        "depth": "not 8 to 16 bits per pixel",
        "size": "no pixels, or more than any detector has",
        "size_mismatch": "header and compressed frame declare different sizes",
        "window": "the window asked for does not exist or cannot be applied",
        "syntax": "a transfer syntax without a decoder here",
        "corrupt_stream": "the compressed frame does not decode",
    }
)
"""Why a file is refused: a fixed vocabulary, with what each word means."""

JPEG_BASELINE = "1.2.840.10008.1.2.4.50"
JPEG_EXTENDED = "1.2.840.10008.1.2.4.51"


@dataclass(frozen=True, eq=False)
class Radiograph:
    """A decoded file.

    Args:
        pixels: (header.rows / scale, header.columns / scale) stored values.
        decoder: what decoded them, as it is told in `images.parquet`.
        scale: divisor of a scaled decode, else 1.
    """

    header: Header
    pixels: Pixels
    rule: GreyRule
    decoder: str
    scale: int = 1


def read(
    data: bytes,
    *,
    accept: Collection[str],
    window: int = 0,
    side: int | None = None,
    parsed: bool = False,
) -> Radiograph:
    """Read a DICOM file.

    Args:
        data: the whole file.
        accept: values of Modality that are taken; `*` takes any modality and body part.
        window: which window or VOI LUT to apply where a file holds several, from 0.
        side: what the frame will be brought to, pixels: allows a scaled decode. None: full size.
        parsed: leave the element walker out, to compare it with the parser.

    Raises:
        DicomError: the file cannot become an image.
    """
    elements = None if parsed else walk(data)
    if elements is None or not _is_plain(elements):
        return _read_parsed(data, accept, window, side)
    check_accepted(elements, accept)
    header = read_header(elements, JPEG_BASELINE)
    rule = _rule(elements, _window(elements, window), None)
    start, stop = elements.pixel_data or (0, 0)
    return _decode_8_bits(memoryview(data)[start:stop], header, rule, side)


def _is_plain(elements: Elements) -> bool:
    """Whether the walker has seen all that matters."""
    return (
        elements.text(tags.TRANSFER_SYNTAX) == JPEG_BASELINE
        and tags.MODALITY_LUT not in elements
        and tags.VOI_LUT not in elements
    )


def _read_parsed(data: bytes, accept: Collection[str], window: int, side: int | None) -> Radiograph:
    """Any encoding that pydicom knows."""
    dataset = parse(data)
    elements = dataset.elements
    if tags.ROWS not in elements or not dataset.has_pixels:
        if dataset.ended_early:
            raise DicomError("truncated", f"The file ends before its {tell(tags.PIXEL_DATA)}.")
        if tags.ROWS not in elements:
            raise DicomError("no_pixels", f"The file holds no {tell(tags.ROWS)}, so no image.")
    check_accepted(elements, accept)
    if not dataset.has_pixels:
        raise DicomError("no_pixels", f"The file holds no {tell(tags.PIXEL_DATA)}.")
    header = read_header(elements, dataset.transfer_syntax)
    rule = _rule(elements, _voi(dataset, window), dataset.lut(tags.MODALITY_LUT, 0))
    if _has_8_bits(dataset):
        return _decode_8_bits(dataset.frame(), header, rule, side)
    pixels, decoder = dataset.decode()
    return Radiograph(header, pixels, rule, decoder)


def _has_8_bits(dataset: DataSet) -> bool:
    """Whether libjpeg-turbo decodes the frame, which no broken stream passes unnoticed."""
    if dataset.transfer_syntax == JPEG_EXTENDED:
        return jpeg_size(dataset.frame()).precision == 8
    return dataset.transfer_syntax == JPEG_BASELINE


def _decode_8_bits(
    frame: bytes | memoryview, header: Header, rule: GreyRule, side: int | None
) -> Radiograph:
    check_8_bits(frame, header.rows, header.columns, header.bits_stored)
    scale = scale_for(header.rows, header.columns, side) if side and rule.plain else 1
    pixels = decode_jpeg(frame, header.rows, header.columns, scale)
    return Radiograph(header, pixels, rule, f"turbo-1/{scale}", scale)


def _rule(elements: Elements, voi: Window | Lut | None, modality: Lut | None) -> GreyRule:
    """What the stored values mean."""
    signed = elements.number(tags.PIXEL_REPRESENTATION, default=0) == 1
    bits = elements.number(tags.BITS_STORED)
    slope = elements.decimals(tags.RESCALE_SLOPE)
    intercept = elements.decimals(tags.RESCALE_INTERCEPT)
    if slope[:1] == [0.0]:
        raise DicomError("malformed", f"{tell(tags.RESCALE_SLOPE)} must not be 0.")
    return GreyRule(
        bits=bits,
        signed=signed,
        slope=slope[0] if slope else 1.0,
        intercept=intercept[0] if intercept else 0.0,
        modality=modality,
        voi=voi,
        padding=_padding(elements, signed),
        inverted=elements.text(tags.PHOTOMETRIC).upper() == "MONOCHROME1",
    )


def _padding(elements: Elements, signed: bool) -> tuple[int, int] | None:
    """First and last stored value that is padding (PS3.3 C.7.5.1.1.2)."""
    if not elements.values.get(tags.PIXEL_PADDING_VALUE):
        return None
    ends = [elements.number(tags.PIXEL_PADDING_VALUE)]
    ends.append(elements.number(tags.PIXEL_PADDING_LIMIT, default=ends[0]))
    if signed:
        ends = [end - (1 << 16) if end >> 15 else end for end in ends]
    return min(ends), max(ends)


def _voi(dataset: DataSet, index: int) -> Window | Lut | None:
    """The VOI LUT or window asked for; a LUT goes first, as in pydicom."""
    lut = dataset.lut(tags.VOI_LUT, index)
    return _window(dataset.elements, index) if lut is None else lut


def _window(elements: Elements, index: int) -> Window | None:
    """The window asked for; None where the file has none at all."""
    centers, widths = elements.decimals(tags.WINDOW_CENTER), elements.decimals(tags.WINDOW_WIDTH)
    if not centers and not widths:
        return None
    if len(centers) != len(widths) or index >= len(centers):
        raise DicomError(
            "window",
            f"{tell(tags.WINDOW_CENTER)} holds {len(centers)} values and "
            f"{tell(tags.WINDOW_WIDTH)} {len(widths)}; shards.window={index} counts from 0.",
        )
    function = elements.text(tags.VOI_FUNCTION).upper() or "LINEAR"
    if function not in get_args(WindowFunction):
        raise DicomError(
            "window",
            f"{tell(tags.VOI_FUNCTION)} must be one of {', '.join(get_args(WindowFunction))}, "
            f"got {function[:32]!r}.",
        )
    try:
        return Window(centers[index], widths[index], function)  # type: ignore[arg-type]
    except ValueError as error:
        raise DicomError(
            "window", f"{tell(tags.WINDOW_WIDTH)} cannot be applied: {error}"
        ) from error
