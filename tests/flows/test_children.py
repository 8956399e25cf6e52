"""A child that dies is started again, at growing intervals, until it has died too often."""

import os
import sys

import pytest

from flows.children import Child, Lifeline, wait
from pneumonia.errors import PneumoniaError

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="flows/keeper.py needs Linux")


@pytest.fixture
def child(tmp_path):
    """Makes a child of a Python program; all end at the end."""
    lifeline = Lifeline()
    made = []

    def make(program, name="child"):
        command = [sys.executable, "-c", program]
        made.append(
            Child(name, command, folder=tmp_path, lifeline=lifeline, held=[],
                  environment=dict(os.environ))
        )  # fmt: skip
        return made[-1]

    make.lifeline = lifeline
    yield make
    lifeline.release()
    os.close(lifeline.end)
    assert wait(made, 30)


def test_its_output_and_status_are_kept(child, tmp_path):
    dying = child("print('why', flush=True); raise SystemExit(3)")
    dying.start()
    assert wait([dying], 30)
    assert dying.status == 3
    assert (tmp_path / "child.log").read_text("utf-8") == "why\n"


def test_it_ends_with_its_lifeline(child):
    living = child("import time; time.sleep(600)")
    living.start()
    assert not wait([living], 0)
    child.lifeline.release()
    assert wait([living], 30)


def test_the_log_of_the_last_time_is_kept(child, tmp_path):
    (tmp_path / "child.log").write_text("last time", "utf-8")
    child("pass").start()
    assert (tmp_path / "child.previous.log").read_text("utf-8") == "last time"


def test_pauses_grow_until_it_has_died_five_times_within_a_minute(child):
    dying = child("raise SystemExit(3)")
    dying.start()
    assert wait([dying], 30)
    assert [dying.next_pause() for _ in range(4)] == [1, 2, 4, 8]
    with pytest.raises(PneumoniaError, match=r"5 times within a minute.*status 3.*child\.log"):
        dying.next_pause()


def test_one_that_ends_before_it_answers_is_told(child):
    dying = child("raise SystemExit(3)", "server")
    dying.start()
    with pytest.raises(PneumoniaError, match=r"server to start, but it ended with status 3"):
        dying.await_answer("http://127.0.0.1:1", lambda: False)
