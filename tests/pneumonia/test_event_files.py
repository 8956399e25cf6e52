import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from pneumonia import event_files
from pneumonia.errors import ConfigError
from pneumonia.event_files import SCALARS, check_tensorboard, event_writer


def epoch(number):
    return {"epoch": number, "epochs": 3} | dict.fromkeys(SCALARS, number / 8)


def test_tensorboard_reads_each_epoch_of_a_training_that_went_on(tmp_path):
    with event_writer(tmp_path) as write:
        write(epoch(1))
    with event_writer(tmp_path) as write:
        write(epoch(2))
        write(epoch(3))
    files = sorted(tmp_path.iterdir())
    assert len(files) == 2
    read = {name: {} for name in SCALARS}
    for file in files:
        events = EventAccumulator(str(file)).Reload()
        for name in SCALARS:
            values = events.Tensors(name)
            read[name] |= {e.step: float(e.tensor_proto.float_val[0]) for e in values}
    assert all(steps == {1: 0.125, 2: 0.25, 3: 0.375} for steps in read.values())


def test_without_the_package_the_cure_is_told(monkeypatch):
    check_tensorboard()
    monkeypatch.setattr(event_files, "find_spec", lambda _: None)
    with pytest.raises(ConfigError, match=r"pip install 'pneumonia\[tensorboard\]'"):
        check_tensorboard()
