import re

import films
import pytest

from pneumonia.elements import walk
from pneumonia.errors import DicomError
from pneumonia.header import ANY, check_accepted, parse_age, read_header

ACCEPT = ("CR", "DX")


def elements_of(changed=None, rows=64, columns=48):
    data = films.preamble() + films.header(rows, columns, changed=changed)
    return walk(data + films.encapsulated(b"frame"))


def refusal(changed, accept=ACCEPT, **size):
    with pytest.raises(DicomError) as caught:
        check_accepted(elements_of(changed, **size), accept)
    return caught.value


def test_read_header_understands_every_field():
    header = read_header(elements_of(), films.BASELINE)
    assert (header.rows, header.columns, header.bits_stored) == (64, 48, 8)
    assert (header.view, header.sex, header.age, header.spacing) == ("PA", "F", 59.0, 0.143)
    assert (header.modality, header.photometric) == ("CR", "MONOCHROME2")
    assert (header.transfer_syntax, header.patient) == (films.BASELINE, "person-7")


def test_read_header_absent_fields_are_none():
    empty = dict.fromkeys([0x00100040, 0x00101010, 0x00185101, 0x00280030, 0x00100020])
    header = read_header(elements_of(empty), films.BASELINE)
    assert (header.view, header.sex, header.age, header.spacing) == (None, None, None, None)
    assert header.patient == ""


def test_read_header_odd_values_stand_or_are_none():
    odd = {
        0x00100040: ("CS", "f "),
        0x00101010: ("AS", "150"),
        0x00185101: ("CS", " ll"),
        0x00280030: ("DS", "wide"),
        0x00181164: ("DS", "0.2\\0.1"),
    }
    header = read_header(elements_of(odd), films.BASELINE)
    assert (header.sex, header.age, header.view, header.spacing) == ("F", 150.0, "LL", 0.2)
    assert read_header(elements_of({0x00100040: ("CS", "X")}), "").sex is None


def test_read_header_view_from_series_description():
    described = {0x00185101: None, 0x0008103E: ("LO", "view: ap")}
    assert read_header(elements_of(described), "").view == "AP"


@pytest.mark.parametrize(
    ("text", "years"),
    [("012W", 84 / 365.25), ("365D", 365 / 365.25), ("018M", 1.5), ("7y", 7.0), ("-5", None)],
)
def test_parse_age_reads_every_unit(text, years):
    assert parse_age(text) == (None if years is None else pytest.approx(years))


@pytest.mark.parametrize(
    ("changed", "reason", "sentence"),
    [
        ({0x00080060: ("CS", "MR")}, "modality", r"must be one of CR, DX, got 'MR'"),
        ({0x00080060: None}, "modality", "got nothing"),
        ({0x00180015: ("CS", "KNEE")}, "body_part", r"\(0018,0015\).*got 'KNEE'"),
        ({0x00280002: ("US", 3)}, "colour", "Samples per Pixel must be 1, got 3"),
        ({0x00280004: ("CS", "PALETTE COLOR")}, "colour", "got 'PALETTE COLOR'"),
        ({0x00280008: ("IS", "2")}, "multi_frame", "got '2'"),
        ({0x00280100: ("US", 32)}, "depth", "Bits Allocated must be 8 or 16, got 32"),
        ({0x00280101: ("US", 12)}, "depth", r"Bits Stored must be in 8\.\.8, got 12"),
        ({0x00280101: ("US", 1)}, "depth", "got 1"),
        ({0x00280102: ("US", 11)}, "depth", "High Bit must be 7, got 11"),
        ({0x00280103: ("US", 2)}, "malformed", "Pixel Representation must be 0 or 1, got 2"),
    ],
)
def test_check_accepted_refuses_with_tag_and_value(changed, reason, sentence):
    error = refusal(changed)
    assert error.reason == reason
    assert re.search(sentence, error.detail)


@pytest.mark.parametrize("part", ["CHEST", "Thorax", "PORT CHEST", "LUNG", ""])
def test_check_accepted_takes_every_name_of_the_chest(part):
    check_accepted(elements_of({0x00180015: ("CS", part)}), ACCEPT)


def test_check_accepted_any_takes_other_modalities_and_parts():
    check_accepted(elements_of({0x00080060: ("CS", "MR"), 0x00180015: ("CS", "KNEE")}), [ANY])
    assert refusal({0x00280002: ("US", 3)}, [ANY]).reason == "colour"


@pytest.mark.parametrize("size", [(65_535, 65_535), (0, 64), (64, 0), (8192, 4097)])
def test_check_accepted_impossible_size_is_refused(size):
    assert refusal({}, rows=size[0], columns=size[1]).reason == "size"


def test_check_accepted_never_repeats_control_characters():
    error = refusal({0x00080060: ("CS", "M\x1b[31mR" + "x" * 100)})
    assert error.detail.isprintable()
    assert len(error.detail) < 150
