"""What counts as done for a stage that another process may have made."""

from dataclasses import replace

import pytest

from flows.dispatch import is_made, parameters
from flows.stages import walk
from flows.status import state_of
from pneumonia.artifacts import Reference
from pneumonia.config import parse
from tasks.caching import Request
from tasks.training import TRAINING


@pytest.fixture
def training(finished, small, tmp_path):
    """The context of the training of a finished run, whose workspace may be damaged."""
    copy = finished.copy(tmp_path)
    request = Request(
        raw=copy.raw, workspace=copy.workspace, config=parse(small), models=("custom_cnn",)
    )
    found = []

    def visit(stage, contexts):
        if stage is TRAINING:
            found.extend(contexts)
        return [
            Reference(stage.name, copy.linked(stage.link_name(c.member)).name) for c in contexts
        ]

    walk(request, TRAINING.name, visit)
    return found[0]


def asked(context, **more):
    return replace(context, request=replace(context.request, **more))


def test_a_training_that_stands_is_made_unless_it_is_asked_for_anew(training):
    assert is_made(training)
    assert not is_made(asked(training, refresh=frozenset({TRAINING.name})))
    assert parameters(asked(training, refresh=frozenset({TRAINING.name})))["refresh"] is True
    assert parameters(training)["refresh"] is False


def test_a_training_of_altered_bytes_is_made_until_they_are_looked_at(training):
    path = training.workspace.path(training.workspace.linked("main", "training-custom_cnn"))
    weights = path / "checkpoint.ckpt"
    content = weights.read_bytes()
    weights.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    assert is_made(training)
    assert state_of(TRAINING, training)[0] == "fresh"
    assert not is_made(asked(training, verify=True))
    assert state_of(TRAINING, asked(training, verify=True))[0] == "stale"
    weights.unlink()
    assert not is_made(training)
