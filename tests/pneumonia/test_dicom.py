"""Reading: both readers agree, and both agree with pydicom's own result."""

import io
import re
import warnings
from pathlib import Path

import films
import numpy as np
import pydicom
import pytest
from dicom_files import FILES, READABLE
from pydicom.encaps import encapsulate, get_frame
from pydicom.pixels.processing import apply_modality_lut, apply_voi_lut

import pneumonia
from pneumonia.dicom import REASONS, read
from pneumonia.errors import DicomError
from pneumonia.header import ANY
from pneumonia.preprocess import FINE, Lut, Window, fit, geometry, render

ACCEPT = ("CR", "DX")


def refusal(data, **options):
    with pytest.raises(DicomError) as caught:
        read(data, **{"accept": ACCEPT, **options})
    assert caught.value.reason in REASONS
    assert caught.value.detail.endswith(".")
    return caught.value


def pydicom_grey(path, *, inverted):
    """Brightness in [0, 1] as pydicom computes it, or by percentiles where it has no window."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dataset = pydicom.dcmread(path, force=True)
        if "TransferSyntaxUID" not in dataset.file_meta:
            implicit, little = dataset.original_encoding
            assert little
            dataset.file_meta.TransferSyntaxUID = films.IMPLICIT if implicit else films.EXPLICIT
        value = apply_modality_lut(dataset.pixel_array, dataset).astype(np.float64)
        if "WindowCenter" in dataset or "VOILUTSequence" in dataset:
            ends = np.array([[-1e6, 1e6]])
            if "VOILUTSequence" in dataset:
                ends = np.array([[0, 2 ** dataset.VOILUTSequence[0].LUTDescriptor[2] - 1]])
                value = value.astype(np.int64)
            else:
                ends = apply_voi_lut(ends, dataset)
            light = (apply_voi_lut(value, dataset) - ends.min()) / (ends.max() - ends.min())
        elif dataset.BitsStored == 8 and "RescaleSlope" not in dataset:
            light = value / 255
        else:
            low, high = np.percentile(value, [0.5, 99.5], method="inverted_cdf")
            light = np.clip((value - low) / max(high - low, 1e-9), 0, 1)
    return 1 - light if inverted else light


@pytest.mark.parametrize("name", READABLE)
def test_read_every_readable_test_file_looks_as_pydicom_makes_it(name):
    film = read(FILES[name].read_bytes(), accept=[ANY])
    grey = render(film.pixels, film.rule)
    ours = grey / (255 if grey.dtype == np.uint8 else 255 * FINE)
    expected = pydicom_grey(FILES[name], inverted=film.header.photometric == "MONOCHROME1")
    padded = np.zeros(film.pixels.shape, bool)
    if film.rule.padding:
        low, high = film.rule.padding
        padded = (film.pixels >= low) & (film.pixels <= high)
    assert np.abs(ours - expected)[~padded].max() <= 0.5 / 255
    assert not ours[padded].any()


def test_readable_test_files_cover_every_encoding():
    films_read = [read(FILES[name].read_bytes(), accept=[ANY]) for name in READABLE]
    syntaxes = {
        film.header.transfer_syntax.removeprefix("1.2.840.10008.1.2") for film in films_read
    }
    assert {"", ".1", ".2", ".1.99", ".5", ".4.51", ".4.70", ".4.80", ".4.90", ".4.91"} <= syntaxes
    assert {film.header.photometric for film in films_read} == {"MONOCHROME1", "MONOCHROME2"}
    assert {film.rule.signed for film in films_read} == {False, True}
    assert {type(film.rule.voi) for film in films_read} >= {type(None), Window}


@pytest.mark.parametrize("name", sorted(FILES))
def test_read_every_test_file_ends_in_pixels_or_a_reason(name):
    data = FILES[name].read_bytes()
    if name in READABLE:
        film = read(data, accept=[ANY])
        assert film.pixels.shape == (film.header.rows, film.header.columns)
    else:
        refusal(data, accept=[ANY])


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("MR_truncated.dcm", "truncated"),
        ("emri_small_jpeg_2k_lossless_too_short.dcm", "truncated"),
        ("SC_rgb.dcm", "colour"),
        ("examples_palette.dcm", "colour"),
        ("emri_small.dcm", "multi_frame"),
        ("liver_1frame.dcm", "depth"),
        ("rtdose_1frame.dcm", "depth"),
        ("rtplan.dcm", "no_pixels"),
        ("test-SR.dcm", "no_pixels"),
        ("no_meta.dcm", "not_dicom"),
        ("JPEG-lossy.dcm", "corrupt_stream"),
        ("JPEG2000-embedded-sequence-delimiter.dcm", "size_mismatch"),
    ],
)
def test_read_known_bad_files_have_their_true_reason(name, reason):
    assert refusal(FILES[name].read_bytes(), accept=[ANY]).reason == reason


@pytest.mark.parametrize(
    "name",
    ["MR_small_jpeg_ls_lossless.dcm", "JPEGLSNearLossless_16.dcm", "JPEGLSNearLossless_08.dcm"],
)
def test_read_jpeg_ls_that_lacks_part_of_its_data_is_refused(name):
    """Cut anywhere and closed again by an EOI, so that nothing but its decoder can tell."""
    dataset = pydicom.dcmread(FILES[name])
    frame = get_frame(dataset.PixelData, 0, number_of_frames=1)
    begin = frame.index(b"\xff\xda") + 14
    for end in np.linspace(begin, len(frame) - 20, 20).astype(int):
        dataset.PixelData = encapsulate([frame[:end].rstrip(b"\xff") + b"\xff\xd9"])
        file = io.BytesIO()
        dataset.save_as(file)
        assert refusal(file.getvalue(), accept=[ANY]).reason == "corrupt_stream"


def test_read_other_modalities_are_refused_unless_accepted():
    error = refusal(FILES["MR_small.dcm"].read_bytes())
    assert (error.reason, "got 'MR'" in error.detail) == ("modality", True)
    assert refusal(FILES["RG3_UNCI.dcm"].read_bytes()).reason == "body_part"
    assert read(FILES["RG1_UNCI.dcm"].read_bytes(), accept=ACCEPT).rule.inverted


@pytest.mark.parametrize("size", [(64, 64), (128, 96), (33, 70)])
@pytest.mark.parametrize("side", [None, 16, 32])
@pytest.mark.parametrize(
    "changed",
    [
        {},
        {0x00280004: ("CS", "MONOCHROME1")},
        {0x00281050: ("DS", "100\\128"), 0x00281051: ("DS", "150\\256")},
        {0x00281052: ("DS", "-10"), 0x00281053: ("DS", "2.5")},
        {0x00280120: ("US", 0)},
        {0x00280008: ("IS", "1"), 0x00100040: None},
    ],
    ids=["plain", "inverted", "window", "rescale", "padding", "odd tags"],
)
def test_read_walker_and_parser_agree(size, side, changed):
    data = films.jpeg_film(films.phantom(*size), changed)
    walked = read(data, accept=ACCEPT, side=side)
    parsed = read(data, accept=ACCEPT, side=side, parsed=True)
    assert walked.header == parsed.header
    assert (walked.scale, walked.decoder) == (parsed.scale, parsed.decoder)
    assert vars(walked.rule) == vars(parsed.rule)
    assert np.array_equal(walked.pixels, parsed.pixels)


def test_read_two_fragments_are_joined():
    frame = films.jpeg(films.phantom())
    frame += b"\0" * (len(frame) % 2)
    half = len(frame) // 4 * 2
    data = films.preamble() + films.header(64, 64) + films.encapsulated(frame[:half], frame[half:])
    whole = read(films.jpeg_film(films.phantom()), accept=ACCEPT)
    assert np.array_equal(read(data, accept=ACCEPT).pixels, whole.pixels)


def test_read_scaled_decode_only_where_the_rule_is_plain():
    image = films.phantom(128, 128)
    assert read(films.jpeg_film(image), accept=ACCEPT, side=32).decoder == "turbo-1/4"
    window = {0x00281050: ("DS", "128"), 0x00281051: ("DS", "256")}
    assert read(films.jpeg_film(image, window), accept=ACCEPT, side=32).decoder == "turbo-1/1"


def test_read_window_index_chooses_and_must_exist():
    changed = {0x00281050: ("DS", "50\\200"), 0x00281051: ("DS", "100\\80")}
    data = films.native_film(films.phantom(), changed=changed)
    assert read(data, accept=ACCEPT).rule.voi == Window(50, 100)
    assert read(data, accept=ACCEPT, window=1).rule.voi == Window(200, 80)
    error = refusal(data, window=2)
    assert error.reason == "window"
    assert "holds 2 values" in error.detail


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({0x00281050: ("DS", "50")}, "window"),
        ({0x00281050: ("DS", "50"), 0x00281051: ("DS", "0")}, "window"),
        (
            {
                0x00281050: ("DS", "50"),
                0x00281051: ("DS", "9"),
                0x00281056: ("CS", "CUBIC"),
            },
            "window",
        ),
        ({0x00281053: ("DS", "0")}, "malformed"),
        ({0x00281053: ("DS", "two")}, "malformed"),
        ({0x00280010: ("US", 65_535), 0x00280011: ("US", 65_535)}, "size"),
        ({0x00280010: ("US", 65)}, "truncated"),
        ({0x00280010: ("UL", b"\1\0\0\0")}, "malformed"),
    ],
)
def test_read_broken_header_is_refused(changed, reason):
    assert refusal(films.native_film(films.phantom(), changed=changed)).reason == reason


def lut_sequence(tag, first, entries, bits, *, items=1):
    one = films.item(
        films.element(0x00283002, "US", np.array([len(entries), first, bits], "<u2").tobytes())
        + films.element(0x00283006, "OW", np.array(entries, "<u2").tobytes())
    )
    return {tag: ("SQ", one * items)}


def test_read_modality_and_voi_tables():
    modality = lut_sequence(0x00283000, 10, [0, 100, 1000], 10)
    voi = lut_sequence(0x00283010, 0, [4095, 0], 12, items=2)
    data = films.native_film(films.phantom(), changed={**modality, **voi})
    rule = read(data, accept=ACCEPT, window=1).rule
    assert isinstance(rule.modality, Lut)
    assert (rule.modality.first, rule.modality.bits) == (10, 10)
    assert rule.modality.entries.tolist() == [0, 100, 1000]
    assert rule.voi.entries.tolist() == [4095, 0]
    assert refusal(data, window=2).reason == "window"


@pytest.mark.parametrize("bits", [4, 17])
def test_read_table_of_impossible_depth_is_refused(bits):
    changed = lut_sequence(0x00283000, 0, [1, 2, 3], bits)
    assert refusal(films.native_film(films.phantom(), changed=changed)).reason == "malformed"


def test_read_jpeg_of_another_size_than_its_header_is_refused():
    lie = films.encapsulated(films.with_size(films.jpeg(films.phantom()), 65_535, 65_535))
    error = refusal(films.preamble() + films.header(64, 64) + lie)
    assert error.reason == "size_mismatch"
    assert "65535 x 65535" in error.detail
    both = films.preamble() + films.header(65_535, 65_535) + lie
    assert refusal(both).reason == "size"


def test_read_stream_shorter_than_it_declares_is_refused():
    lie = films.encapsulated(films.with_size(films.jpeg(films.phantom()), 128, 64))
    assert refusal(films.preamble() + films.header(128, 64) + lie).reason == "corrupt_stream"


@pytest.mark.parametrize("syntax", ["1.2.840.10008.1.2.4.100", "1.2.3", films.RLE])
def test_read_unknown_syntax_or_foreign_stream_is_refused(syntax):
    data = films.preamble(syntax) + films.header(64, 64) + films.encapsulated(b"\0" * 70)
    assert refusal(data).reason in {"syntax", "corrupt_stream"}


@pytest.mark.parametrize("data", [b"", b"\x89PNG\r\n", b"\0" * 1000, b"\x08\0" + b"\xaa" * 500])
def test_read_foreign_bytes_are_refused(data):
    assert refusal(data).reason in {"not_dicom", "no_pixels", "malformed", "truncated"}


def test_reasons_cover_every_word_that_the_library_uses():
    used = set()
    for path in Path(pneumonia.__file__).parent.glob("*.py"):
        text = path.read_text("utf-8")
        used |= set(re.findall(r'(?:DicomError|refuse|_unlike|_told)\(\s*"(\w+)"', text))
    used.add("unsettled")
    assert used == set(REASONS)


def test_read_errors_name_no_patient_and_no_path():
    changed = {0x00100010: ("PN", "Doe^Jane"), 0x00281053: ("DS", "0")}
    assert "Doe" not in refusal(films.native_film(films.phantom(), changed=changed)).detail


def test_read_rg1_chest_film_is_placed_in_the_square():
    film = read(FILES["RG1_UNCR.dcm"].read_bytes(), accept=ACCEPT, side=256)
    image = fit(render(film.pixels, film.rule), 256, film.scale)
    placed = geometry(film.header.rows, film.header.columns, 256)
    left = round(placed.offset_x)
    assert not image[:, :left].any()
    assert image[:, left + 2 : 256 - left - 2].mean() > 60
