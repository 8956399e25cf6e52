"""DICOM files for tests, written element by element, so that each can be wrong in one place."""

import struct

import numpy as np
import simplejpeg

IMPLICIT = "1.2.840.10008.1.2"
EXPLICIT = "1.2.840.10008.1.2.1"
DEFLATED = "1.2.840.10008.1.2.1.99"
BASELINE = "1.2.840.10008.1.2.4.50"
EXTENDED = "1.2.840.10008.1.2.4.51"
LOSSLESS = "1.2.840.10008.1.2.4.70"
JPEG_2000 = "1.2.840.10008.1.2.4.90"
RLE = "1.2.840.10008.1.2.5"

CHEST = {
    0x00080060: ("CS", "CR"),
    0x00100020: ("LO", "person-7"),
    0x00100040: ("CS", "F"),
    0x00101010: ("AS", "59"),
    0x00180015: ("CS", "CHEST"),
    0x00185101: ("CS", "PA"),
    0x00280002: ("US", 1),
    0x00280004: ("CS", "MONOCHROME2"),
    0x00280030: ("DS", "0.143\\0.139"),
}
_LONG = {"OB", "OW", "SQ", "UN", "UT"}
UNDEFINED = 0xFFFFFFFF


def element(tag, form, value, size=None):
    """One element in explicit VR little endian; `size` may lie."""
    if isinstance(value, int):
        value = struct.pack("<H", value & 0xFFFF)
    elif isinstance(value, str):
        value = value.encode()
    if len(value) % 2:
        value += b"\0" if form in {"UI", "OB"} else b" "
    size = len(value) if size is None else size
    head = struct.pack("<HH2s", tag >> 16, tag & 0xFFFF, form.encode())
    return (
        head + struct.pack("<HL" if form in _LONG else "<H", *([0] * (form in _LONG)), size) + value
    )


def preamble(syntax=BASELINE):
    meta = element(0x00020010, "UI", syntax)
    return b"\0" * 128 + b"DICM" + element(0x00020000, "UL", struct.pack("<L", len(meta))) + meta


def header(rows, columns, bits=8, changed=None):
    """The data set up to its pixels; `changed` adds elements, or takes one away with None."""
    elements = {
        **CHEST,
        0x00280010: ("US", rows),
        0x00280011: ("US", columns),
        0x00280100: ("US", 8 if bits == 8 else 16),
        0x00280101: ("US", bits),
        0x00280102: ("US", bits - 1),
        0x00280103: ("US", 0),
        **(changed or {}),
    }
    return b"".join(element(tag, *elements[tag]) for tag in sorted(elements) if elements[tag])


def item(value, tag=0xFFFEE000):
    value += b"\0" * (len(value) % 2)
    return struct.pack("<HHL", tag >> 16, tag & 0xFFFF, len(value)) + value


def encapsulated(*fragments):
    """Compressed pixel data: an empty offset table, the fragments, the end."""
    inside = b"".join([item(b""), *map(item, fragments), item(b"", 0xFFFEE0DD)])
    return element(0x7FE00010, "OB", b"", UNDEFINED) + inside


def jpeg(image, quality=90):
    return simplejpeg.encode_jpeg(
        np.ascontiguousarray(image)[..., None], quality, "GRAY", colorsubsampling="Gray"
    )


def jpeg_film(image, changed=None, quality=90):
    """A film as the challenge writes them."""
    return preamble() + header(*image.shape, changed=changed) + encapsulated(jpeg(image, quality))


def native_film(pixels, bits=None, changed=None):
    """An uncompressed film of any depth; signed pixels are declared as such."""
    bits = bits or 8 * pixels.dtype.itemsize
    signed = {0x00280103: ("US", int(pixels.dtype.kind == "i"))}
    stored = pixels.astype(pixels.dtype.newbyteorder("<")).tobytes()
    return (
        preamble(EXPLICIT)
        + header(*pixels.shape, bits=bits, changed={**signed, **(changed or {})})
        + element(0x7FE00010, "OW", stored)
    )


def with_size(frame, rows, columns):
    """A JPEG stream that declares another size than it has."""
    place = frame.index(b"\xff\xc0") + 5
    return frame[:place] + struct.pack(">HH", rows, columns) + frame[place + 4 :]


def phantom(rows=64, columns=64, seed=0):
    """Smooth shapes with a little noise, 8 bits, like a film in its statistics."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:rows, 0:columns]
    image = 120 + 70 * np.sin(x / columns * 7 + seed) * np.cos(y / rows * 5)
    return np.clip(image + rng.normal(0, 4, (rows, columns)), 0, 255).astype(np.uint8)


def area_average(image, side):
    """Exact float64 average over areas, to compare with: a matrix per axis."""
    return (
        _weights(image.shape[0], side) @ image.astype(np.float64) @ _weights(image.shape[1], side).T
    )


def _weights(n, side):
    edges = np.arange(side + 1) * n / side
    cells = np.arange(n)
    low = np.maximum(edges[:-1, None], cells)
    high = np.minimum(edges[1:, None], cells + 1)
    return np.clip(high - low, 0, None) * side / n
