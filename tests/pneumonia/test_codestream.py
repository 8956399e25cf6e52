import io
import struct

import films
import numpy as np
import pytest
from PIL import Image

from pneumonia.codestream import (
    FrameSize,
    check_8_bits,
    check_end,
    check_scans,
    check_size,
    check_tiles,
    decode_jpeg,
    jpeg2000_size,
    jpeg_size,
    scale_for,
)
from pneumonia.errors import DicomError

IMAGE = films.phantom(128, 64)
FRAME = films.jpeg(IMAGE)


def pillow(image, kind, **options):
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, kind, **options)
    return stream.getvalue()


TILED = pillow(films.phantom(100, 70), "JPEG2000", no_jp2=True, tile_size=(64, 64))


def reason_of(function, *args):
    with pytest.raises(DicomError) as caught:
        function(*args)
    return caught.value.reason


def test_jpeg_size_reads_the_frame_header():
    assert jpeg_size(FRAME) == FrameSize(128, 64, 1, 8, 0xC0)
    assert jpeg_size(pillow(IMAGE, "JPEG", progressive=True)).process == 0xC2
    assert jpeg_size(b"\xff\xd8\xff" + FRAME[2:]) == jpeg_size(FRAME)  # a fill byte


@pytest.mark.parametrize("frame", [b"", b"\xff\xd8", b"\x89PNG", FRAME[:20], b"\xff\xd8" * 50])
def test_jpeg_size_without_frame_header_raises(frame):
    assert reason_of(jpeg_size, frame) == "corrupt_stream"


def test_jpeg2000_size_bare_and_boxed():
    assert jpeg2000_size(TILED) == FrameSize(100, 70, 1, 8)
    assert jpeg2000_size(pillow(films.phantom(100, 70), "JPEG2000")) == FrameSize(100, 70, 1, 8)


@pytest.mark.parametrize("frame", [b"", TILED[:30], FRAME])
def test_jpeg2000_size_without_siz_raises(frame):
    assert reason_of(jpeg2000_size, frame) == "corrupt_stream"


def test_check_tiles_whole_stream_passes():
    check_tiles(TILED)
    check_tiles(pillow(films.phantom(100, 70), "JPEG2000"))


@pytest.mark.parametrize("cut", [120, 300, len(TILED) // 2, len(TILED) - 40])
def test_check_tiles_cut_stream_is_truncated(cut):
    assert reason_of(check_tiles, TILED[:cut]) == "truncated"


@pytest.mark.parametrize("edges", [(60_000, 60_000, 0, 0, 64, 64), (70, 100, 0, 0, 0, 64)])
def test_check_tiles_impossible_number_raises(edges):
    start = TILED.index(b"\xff\x51") + 6
    lie = TILED[:start] + struct.pack(">6L", *edges) + TILED[start + 24 :]
    assert reason_of(check_tiles, lie) == "corrupt_stream"


def test_check_size_tells_both_sizes():
    with pytest.raises(
        DicomError, match=r"header declares 32 x 64 .* the compressed frame 64 x 128"
    ):
        check_size(jpeg_size(FRAME), 64, 32)
    assert reason_of(check_size, FrameSize(64, 32, 3, 8), 64, 32) == "colour"


@pytest.mark.parametrize("scale", [1, 2, 4, 8])
def test_decode_jpeg_scaled_is_the_mean_of_its_blocks(scale):
    full = decode_jpeg(FRAME, 128, 64, 1).astype(float)
    means = full.reshape(128 // scale, scale, 64 // scale, scale).mean(axis=(1, 3))
    error = np.abs(decode_jpeg(FRAME, 128, 64, scale) - means)
    assert error.mean() < 0.3
    assert error.max() <= 2.0


def test_decode_jpeg_full_equals_pillow():
    assert np.array_equal(decode_jpeg(FRAME, 128, 64, 1), np.asarray(Image.open(io.BytesIO(FRAME))))


@pytest.mark.parametrize(
    "frame",
    [FRAME[:-200], FRAME[: len(FRAME) // 2] + b"\xff\xd9", FRAME[:2], b""],
    ids=["cut", "cut and closed", "only a start", "empty"],
)
def test_decode_jpeg_broken_stream_raises(frame):
    assert reason_of(decode_jpeg, frame, 128, 64, 4) == "corrupt_stream"


def test_decode_jpeg_orientation_tag_is_ignored():
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    frame = pillow(IMAGE, "JPEG", exif=exif)
    assert decode_jpeg(frame, 128, 64, 1).shape == (128, 64)


def test_check_8_bits_takes_only_grey_8_bits():
    check_8_bits(FRAME, 128, 64, 8)
    assert reason_of(check_8_bits, FRAME, 128, 64, 12) == "depth"
    colour = pillow(np.dstack([IMAGE] * 3), "JPEG")
    assert reason_of(check_8_bits, colour, 128, 64, 8) == "colour"


def test_check_scans_endless_progressive_raises():
    frame = pillow(IMAGE, "JPEG", progressive=True)
    check_scans(frame)
    start, end = frame.rindex(b"\xff\xda"), frame.rindex(b"\xff\xd9")
    assert reason_of(check_scans, frame[:start] + frame[start:end] * 100) == "corrupt_stream"


def test_check_end_allows_padding_only():
    check_end(FRAME + b"\0\0")
    assert reason_of(check_end, FRAME[:-2]) == "truncated"


@pytest.mark.parametrize(
    ("rows", "columns", "side", "scale"),
    [
        (1024, 1024, 128, 8),
        (1024, 1024, 512, 2),
        (1024, 1024, 1024, 1),
        (2048, 2048, 256, 8),
        (4096, 4096, 224, 8),
        (1024, 1024, 300, 1),
        (1024, 1000, 128, 8),
        (1024, 1001, 128, 1),
        (64, 64, 256, 1),
    ],
)
def test_scale_for_never_ends_between_one_and_two_sides(rows, columns, side, scale):
    assert scale_for(rows, columns, side) == scale
