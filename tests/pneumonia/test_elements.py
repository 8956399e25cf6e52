import struct

import films
import pytest

from pneumonia import elements as tags
from pneumonia.elements import Elements, read_meta, tell, walk
from pneumonia.errors import DicomError

FILM = films.jpeg_film(films.phantom())


def test_walk_plain_file_finds_values_and_fragment():
    found = walk(FILM)
    start, stop = found.pixel_data
    assert found.text(tags.MODALITY) == "CR"
    assert found.number(tags.ROWS) == 64
    assert found.decimals(tags.PIXEL_SPACING) == [0.143, 0.139]
    assert FILM[start:stop].startswith(b"\xff\xd8")
    assert films.jpeg(films.phantom()) == FILM[start:stop].rstrip(b"\0")


def test_walk_keeps_only_what_is_read():
    film = films.jpeg_film(films.phantom(), {0x00100010: ("PN", "Somebody")})
    assert set(walk(film).values) <= tags.READ
    assert b"Somebody" not in b"".join(walk(film).values.values())


@pytest.mark.parametrize(
    "data",
    [
        b"",
        FILM[132:],
        FILM[:-1],
        FILM[:700],
        films.native_film(films.phantom()),
        films.preamble() + films.header(8, 8) + films.encapsulated(b"ab", b"cd"),
        films.preamble() + films.header(8, 8) + films.header(8, 8),
        films.preamble()
        + films.element(0x00081140, "SQ", b"", films.UNDEFINED)
        + films.header(8, 8)
        + films.encapsulated(b"ab"),
        films.preamble() + b"".join(films.element(0x10000 * i, "SH", "") for i in range(8, 5000)),
    ],
    ids=["empty", "no preamble", "cut at the end", "cut in the header", "uncompressed",
         "two fragments", "tags twice", "undefined length", "too many elements"],
)  # fmt: skip
def test_walk_anything_unexpected_is_left_to_the_parser(data):
    assert walk(data) is None


@pytest.mark.parametrize("cut", range(132, len(FILM), 97))
def test_walk_cut_anywhere_never_raises(cut):
    assert walk(FILM[:cut]) is None


def test_read_meta_names_syntax_and_start():
    syntax, begin = read_meta(FILM)
    assert syntax == films.BASELINE
    assert FILM[begin : begin + 4] == b"\x08\x00\x60\x00"
    assert read_meta(b"no DICOM file") == ("", 0)


@pytest.mark.parametrize("little", [True, False])
def test_elements_number_follows_byte_order(little):
    value = struct.pack("<H" if little else ">H", 300)
    assert Elements({tags.ROWS: value}, little_endian=little).number(tags.ROWS) == 300


def test_elements_number_absent_or_long_is_told_with_its_tag():
    with pytest.raises(DicomError, match=r"\(0028,0010\) Rows must be one 16-bit number, got 0"):
        Elements({}).number(tags.ROWS)
    with pytest.raises(DicomError, match="got 4 bytes"):
        Elements({tags.ROWS: b"\0\0\0\0"}).number(tags.ROWS, default=1)
    assert Elements({}).number(tags.SAMPLES_PER_PIXEL, default=1) == 1


@pytest.mark.parametrize("value", [b"1\\x", b"nan", b"1e999", b"1,5", b"\\"])
def test_elements_decimals_no_finite_number_raises(value):
    with pytest.raises(DicomError) as caught:
        Elements({tags.WINDOW_CENTER: value}).decimals(tags.WINDOW_CENTER)
    assert caught.value.reason == "malformed"


@pytest.mark.parametrize(
    "tag", [tags.WINDOW_CENTER, tags.RESCALE_SLOPE, tags.NUMBER_OF_FRAMES, tags.PIXEL_SPACING]
)
def test_elements_decimals_error_never_quotes_the_file(tag):
    with pytest.raises(DicomError) as caught:
        Elements({tag: b"MILLER^ANNE 1957"}).decimals(tag)
    assert caught.value.detail == f"{tell(tag)} must hold decimal numbers, got 16 other bytes."


def test_elements_text_strips_padding_and_reads_other_charsets():
    assert Elements({tags.MODALITY: b" CR\0"}).text(tags.MODALITY) == "CR"
    assert Elements({tags.BODY_PART: b"T\xd3RAX "}).text(tags.BODY_PART) == "TÓRAX"
    assert Elements({tags.PHOTOMETRIC: b"A\\B"}).text(tags.PHOTOMETRIC) == "A"
    assert Elements({}).text(tags.MODALITY) == ""


def test_tell_unknown_tag_is_its_number():
    assert tell(0x00091001) == "(0009,1001)"


def test_walk_reads_what_was_written_whatever_the_image():
    for seed in range(5):
        image = films.phantom(8 + 8 * seed, 64, seed)
        found = walk(films.jpeg_film(image))
        assert (found.number(tags.ROWS), found.number(tags.COLUMNS)) == image.shape
