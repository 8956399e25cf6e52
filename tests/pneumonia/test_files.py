import os

import pytest

from pneumonia.errors import DicomError
from pneumonia.files import MAX_BYTES, digest, read_file


def reason_of(path):
    with pytest.raises(DicomError) as caught:
        read_file(path)
    assert str(path) not in caught.value.detail
    return caught.value.reason


def test_read_file_returns_its_bytes(tmp_path):
    path = tmp_path / "a.dcm"
    for content in (b"", b"x" * 100_000):
        path.write_bytes(content)
        assert read_file(path) == content


def test_read_file_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "a.dcm")
    assert reason_of(tmp_path / "a.dcm") == "not_a_file"


@pytest.mark.parametrize("target", ["/dev/zero", "/"])
def test_read_file_device_or_folder_is_refused(tmp_path, target):
    (tmp_path / "a.dcm").symlink_to(target)
    assert reason_of(tmp_path / "a.dcm") == "not_a_file"


def test_read_file_loop_of_links_is_refused(tmp_path):
    (tmp_path / "a.dcm").symlink_to("b.dcm")
    (tmp_path / "b.dcm").symlink_to("a.dcm")
    assert reason_of(tmp_path / "a.dcm") == "link_loop"


def test_read_file_missing_or_dangling_is_unreadable(tmp_path):
    assert reason_of(tmp_path / "a.dcm") == "unreadable"
    (tmp_path / "b.dcm").symlink_to("nowhere")
    assert reason_of(tmp_path / "b.dcm") == "unreadable"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_read_file_without_permission_is_unreadable(tmp_path):
    (tmp_path / "a.dcm").write_bytes(b"x")
    (tmp_path / "a.dcm").chmod(0)
    assert reason_of(tmp_path / "a.dcm") == "unreadable"


def test_read_file_larger_than_the_bound_is_refused_unread(tmp_path):
    with (tmp_path / "a.dcm").open("wb") as handle:
        handle.truncate(MAX_BYTES + 1)  # sparse
    assert reason_of(tmp_path / "a.dcm") == "too_large"


def test_digest_is_blake3_and_tells_parts_apart():
    # https://github.com/BLAKE3-team/BLAKE3, test vector of no bytes
    assert digest(b"") == "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262"
    assert digest(b"ab") == digest(b"a", b"b") == digest(memoryview(b"ab"))
    assert digest(b"ab") != digest(b"ba")
