"""A grey JPEG becomes a DICOM file as the challenge's own are: Secondary Capture, one fragment.

Written element by element, because a library would refuse what the challenge does: a PatientAge
of `59`, where PS3.5 6.2 asks for `059Y`.
"""

import struct
import uuid

_SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
_JPEG_BASELINE = "1.2.840.10008.1.2.4.50"
_IMPLEMENTATION = "2.25.302843418316914537094103391640935217963"


def wrap(
    jpeg: bytes, *, side: int, image_id: str, view: str, sex: str, age: int, spacing: float
) -> bytes:
    """Wrap a square grey image: the tags, and only those, of the challenge's own files.

    Args:
        jpeg: JPEG Baseline, 8 bits, one component, `side` x `side` pixels.
        image_id: a UUID; it names patient, study and instance alike.
        view: `AP` or `PA`.
        sex: `F` or `M`.
        age: years.
        spacing: mm from pixel to pixel.
    """
    identity = uuid.UUID(image_id)
    uid = _uid(identity)
    meta = (
        _element(0x00020001, "OB", b"\0\1")
        + _element(0x00020002, "UI", _SECONDARY_CAPTURE)
        + _element(0x00020003, "UI", uid)
        + _element(0x00020010, "UI", _JPEG_BASELINE)
        + _element(0x00020012, "UI", _IMPLEMENTATION)
    )
    elements: list[tuple[int, str, str | int]] = [
        (0x00080005, "CS", "ISO_IR 100"),
        (0x00080016, "UI", _SECONDARY_CAPTURE),
        (0x00080018, "UI", uid),
        (0x00080020, "DA", "19010101"),
        (0x00080030, "TM", "000000.00"),
        (0x00080050, "SH", ""),
        (0x00080060, "CS", "CR"),
        (0x00080064, "CS", "WSD"),
        (0x00080090, "PN", ""),
        (0x0008103E, "LO", f"view: {view}"),
        (0x00100010, "PN", image_id),
        (0x00100020, "LO", image_id),
        (0x00100030, "DA", ""),
        (0x00100040, "CS", sex),
        (0x00101010, "AS", str(age)),
        (0x00180015, "CS", "CHEST"),
        (0x00185101, "CS", view),
        (0x0020000D, "UI", _uid(uuid.uuid5(identity, "study"))),
        (0x0020000E, "UI", _uid(uuid.uuid5(identity, "series"))),
        (0x00200010, "SH", ""),
        (0x00200011, "IS", "1"),
        (0x00200013, "IS", "1"),
        (0x00200020, "CS", ""),
        (0x00280002, "US", 1),
        (0x00280004, "CS", "MONOCHROME2"),
        (0x00280010, "US", side),
        (0x00280011, "US", side),
        (0x00280030, "DS", f"{spacing}\\{spacing}"),
        (0x00280100, "US", 8),
        (0x00280101, "US", 8),
        (0x00280102, "US", 7),
        (0x00280103, "US", 0),
        (0x00282110, "CS", "01"),
        (0x00282114, "CS", "ISO_10918_1"),
    ]
    return b"".join(
        [
            b"\0" * 128 + b"DICM",
            _element(0x00020000, "UL", struct.pack("<I", len(meta))),
            meta,
            *(_element(*element) for element in elements),
            _encapsulate(jpeg),
        ]
    )


def _uid(identity: uuid.UUID) -> str:
    return f"2.25.{identity.int}"  # PS3.5 B.2: a UID made of a UUID


def _element(tag: int, vr: str, value: str | int | bytes) -> bytes:
    """A data element in explicit VR little endian (PS3.5 7.1.2), padded to even length."""
    if isinstance(value, int):
        value = struct.pack("<H", value)
    elif isinstance(value, str):
        value = value.encode("ascii") + (b"\0" if vr == "UI" else b" ") * (len(value) % 2)
    length = struct.pack("<HI", 0, len(value)) if vr == "OB" else struct.pack("<H", len(value))
    return struct.pack("<HH", tag >> 16, tag & 0xFFFF) + vr.encode("ascii") + length + value


def _encapsulate(jpeg: bytes) -> bytes:
    """Pixel Data of one fragment behind an empty offset table (PS3.5 A.4)."""
    jpeg += b"\0" * (len(jpeg) % 2)
    return b"".join(
        [
            struct.pack("<HH2sHI", 0x7FE0, 0x0010, b"OB", 0, 0xFFFFFFFF),
            struct.pack("<HHI", 0xFFFE, 0xE000, 0),
            struct.pack("<HHI", 0xFFFE, 0xE000, len(jpeg)) + jpeg,
            struct.pack("<HHI", 0xFFFE, 0xE0DD, 0),
        ]
    )
