import io
import warnings

import numpy as np
import pydicom
import pytest
from pydicom.encaps import generate_frames

from pneumonia.phantom import encode_jpeg
from pneumonia.secondary_capture import wrap

IMAGE_ID = "7ae650cc-b769-4435-b05c-21e981cdf478"

# As data/README.md of the challenge's files lists them.
TAGS = """
    00080005 00080016 00080018 00080020 00080030 00080050 00080060 00080064 00080090 0008103E
    00100010 00100020 00100030 00100040 00101010 00180015 00185101
    0020000D 0020000E 00200010 00200011 00200013 00200020
    00280002 00280004 00280010 00280011 00280030 00280100 00280101 00280102 00280103 00282110
    00282114 7FE00010
"""


@pytest.fixture(scope="module")
def jpeg():
    return encode_jpeg(np.tile(np.arange(64, dtype=np.uint8) * 3, (64, 1)))


def make_file(jpeg, **changes):
    header = {"side": 64, "image_id": IMAGE_ID, "view": "AP", "sex": "F", "age": 59}
    return wrap(jpeg, **{**header, "spacing": 0.194311, **changes})


def read(content):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # the age of `59`
        dataset = pydicom.dcmread(io.BytesIO(content))
        for _ in dataset:
            pass  # decodes every element
    return dataset


def test_wrap_has_the_challenge_files_tags_and_no_other(jpeg):
    dataset = read(make_file(jpeg))
    assert [f"{int(element.tag):08X}" for element in dataset] == TAGS.split()


def test_wrap_pydicom_reads_every_field(jpeg):
    dataset = read(make_file(jpeg))
    expected = {
        "Modality": "CR",
        "ConversionType": "WSD",
        "SOPClassUID": "1.2.840.10008.5.1.4.1.1.7",
        "StudyDate": "19010101",
        "SeriesDescription": "view: AP",
        "ViewPosition": "AP",
        "PatientID": IMAGE_ID,
        "PatientName": IMAGE_ID,
        "PatientSex": "F",
        "PatientAge": "59",
        "BodyPartExamined": "CHEST",
        "Rows": 64,
        "Columns": 64,
        "BitsAllocated": 8,
        "BitsStored": 8,
        "HighBit": 7,
        "PixelRepresentation": 0,
        "SamplesPerPixel": 1,
        "PhotometricInterpretation": "MONOCHROME2",
        "PixelSpacing": [0.194311, 0.194311],
        "LossyImageCompression": "01",
    }
    assert {name: dataset[name].value for name in expected} == expected
    meta = dataset.file_meta
    assert meta.TransferSyntaxUID == "1.2.840.10008.1.2.4.50"
    assert meta.MediaStorageSOPInstanceUID == dataset.SOPInstanceUID
    assert meta.FileMetaInformationVersion == b"\0\1"


def test_wrap_meta_group_length_points_at_the_data_set(jpeg):
    content = make_file(jpeg)
    start = 128 + 4 + 12 + read(content).file_meta.FileMetaInformationGroupLength
    assert content[start : start + 6] == b"\x08\x00\x05\x00CS"


def test_wrap_uids_are_valid_and_of_this_image_alone(jpeg):
    names = ("SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID")
    one = read(make_file(jpeg))
    other = read(make_file(jpeg, image_id=IMAGE_ID.replace("7ae", "7af")))
    uids = [dataset[name].value for dataset in (one, other) for name in names]
    assert all(uid.is_valid for uid in uids)
    assert len(set(uids)) == 6


@pytest.mark.parametrize("extra", [b"", b"\0"])
def test_wrap_holds_the_jpeg_in_one_fragment_of_even_length(jpeg, extra):
    dataset = read(make_file(jpeg + extra))
    (fragment,) = generate_frames(dataset.PixelData, number_of_frames=1)
    assert fragment.startswith(jpeg)
    assert len(fragment) % 2 == 0
    assert len(fragment) - len(jpeg + extra) in (0, 1)


def test_wrap_pixels_come_back(jpeg):
    pixels = read(make_file(jpeg)).pixel_array
    assert np.abs(pixels.astype(int) - np.arange(64) * 3).max() <= 3


def test_wrap_same_arguments_give_the_same_bytes(jpeg):
    assert make_file(jpeg) == make_file(jpeg)
    assert make_file(jpeg) != make_file(jpeg, age=60)
