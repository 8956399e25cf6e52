import subprocess
import sys

import pytest

from pneumonia.locks import attempt, hold, is_held, share

SHARE = """
import sys
from pathlib import Path
from pneumonia.locks import share
with share(Path(sys.argv[1]), "waiting", make=True):
    print("shared", flush=True)
    sys.stdin.read()
"""


def test_attempt_has_a_free_lock_and_not_one_that_is_held(tmp_path):
    path = tmp_path / "lock"
    with hold(path, "waiting"):
        with attempt(path) as free:
            assert not free
        assert is_held(path)
    with attempt(path) as free:
        assert free
    assert not is_held(path)


def test_several_share_a_lock_and_nobody_has_it_alone_then(tmp_path):
    path = tmp_path / "lock"
    with share(path, "waiting", make=True), share(path, "waiting", make=True):
        with attempt(path) as free:
            assert not free
        assert is_held(path, shared=True)
        assert not is_held(path)  # a further one can share it
    with attempt(path) as free:
        assert free


def test_a_shared_lock_is_gone_with_its_process(tmp_path):
    path = tmp_path / "lock"
    with subprocess.Popen(
        [sys.executable, "-c", SHARE, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        assert other.stdout.readline() == b"shared\n"
        assert is_held(path, shared=True)
        other.kill()  # kill -9
    assert not is_held(path, shared=True)


def test_share_that_must_write_nothing_makes_no_file(tmp_path):
    with share(tmp_path / "none" / "lock", "waiting", make=False):
        assert list(tmp_path.iterdir()) == []
    with (
        pytest.raises(FileNotFoundError),
        share(tmp_path / "none" / "lock", "waiting", make=True),
    ):
        pass


def test_a_link_in_the_place_of_a_lock_is_not_followed(tmp_path):
    (tmp_path / "lock").symlink_to(tmp_path / "outside")
    with pytest.raises(OSError, match="symbolic links"), attempt(tmp_path / "lock"):
        pass
    assert not (tmp_path / "outside").exists()
