"""The child process that trains: real ones, killed for real."""

import errno
import fcntl
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.metrics import roc_auc_score
from torch.nn.functional import binary_cross_entropy_with_logits

from pneumonia import checkpoint, errors, resume
from pneumonia.child_process import Stop
from pneumonia.errors import ConfigError, DataError, TrainingError
from pneumonia.network import normalise
from pneumonia.pool import ImagePool
from pneumonia.trainer_process import TrainingJob, _as_error, _event, run_training
from pneumonia.training import train

PARENT = """
import sys
from pathlib import Path
from pneumonia.network import normalise
from pneumonia.pool import ImagePool
from pneumonia.trainer_process import TrainingJob, run_training

folder = Path(sys.argv[1])
with (folder / "lock").open("w") as lock:
    run_training(
        TrainingJob.read(folder / "job.json"),
        lock=lock.fileno(),
        on_epoch=lambda event: print(event["epoch"], flush=True),
    )
"""


def errors_by_name():
    """All classes of the tree."""
    return {name: kind for name, kind in vars(errors).items() if isinstance(kind, type)}


@pytest.fixture
def lock(tmp_path):
    with (tmp_path / "lock").open("w") as file:
        yield file.fileno()


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, make_job):
    """What `make_job`'s training writes, run in this process."""
    job = make_job(tmp_path_factory.mktemp("undisturbed"))
    train(job, on_epoch=lambda _: None, stop=Stop())
    return outcome(job)


def outcome(job):
    return {path.name: path.read_bytes() for path in sorted(Path(job.output).iterdir())}


def children(parent):
    """Process ids of a process's children."""
    tasks = Path("/proc", str(parent), "task").glob("*/children")
    return [int(child) for task in tasks for child in task.read_text().split()]


def alive(process):
    """Whether a process runs: neither gone nor waiting to be collected."""
    try:
        state = Path("/proc", str(process), "stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def trainers(job):
    """Processes that were started for this job."""
    name = str(Path(job.state, "job.json")).encode()
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if name in path.read_bytes().split(b"\0"):
                found.append(int(path.parent.name))
        except OSError:
            continue
    return found


def kill_trainers(job):
    for process in trainers(job):
        os.kill(process, signal.SIGKILL)


def wait_until(condition, seconds=10.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)


def test_job_survives_json(tmp_path, make_job):
    job = make_job(tmp_path, "training.crop_size=28", 'shards.accept=["CR"]')
    job.write(tmp_path / "job.json")
    assert TrainingJob.read(tmp_path / "job.json") == job


@pytest.mark.parametrize("line", [b"a warning of some library", b"3", b"\xff", b""])
def test_line_that_is_no_event_is_told_as_log(line):
    assert _event(line)["log"] == line.decode("utf-8", "replace")


def test_run_training_killed_twice_goes_on_to_the_same_bytes(
    undisturbed, tmp_path, lock, caplog, make_job
):
    """`kill -9` after the first and the second epoch; each epoch is told once."""
    job, told, deaths = make_job(tmp_path), [], []

    def kill_until_the_third(event):
        told.append(event["epoch"])
        if event["epoch"] < 3:
            for process in trainers(job):
                os.kill(process, signal.SIGKILL)

    facts = None
    while facts is None:
        try:
            with caplog.at_level("INFO"):
                facts = run_training(job, lock=lock, on_epoch=kill_until_the_third)
        except TrainingError as error:
            deaths.append(str(error))
        assert trainers(job) == []  # none left behind
    assert 1 <= len(deaths) <= 2  # one where the first came too late to spare the second epoch
    assert all("its process ended by SIGKILL. Run again" in message for message in deaths)
    assert told == [1, 2, 3]
    assert facts["epochs"] == 3
    assert outcome(job) == undisturbed
    assert "from epoch 3, step" in caplog.text or "from epoch 2, step" in caplog.text


@pytest.mark.e2e  # five starts of torch
def test_run_training_killed_at_random_moments_goes_on_to_the_same_bytes(tmp_path, lock, make_job):
    """Three times `kill -9`, wherever the work is then; each epoch stands once in the history."""
    long = ("training.epochs=24", "training.patience=24")
    for name in ("undisturbed", "killed"):
        (tmp_path / name).mkdir()
    undisturbed, epochs = make_job(tmp_path / "undisturbed", *long), []
    run_training(undisturbed, lock=lock, on_epoch=epochs.append)
    span = 5 * np.median([event["seconds"] for event in epochs])
    job, told, deaths, lot = make_job(tmp_path / "killed", *long), [], 0, np.random.default_rng(0)
    while deaths < 3:
        timer = threading.Timer(lot.uniform(0, span), kill_trainers, [job])
        first = len(told)

        def begin(event, timer=timer, first=first):
            told.append(event["epoch"])
            if len(told) == first + 1:
                timer.start()

        with pytest.raises(TrainingError, match="SIGKILL"):
            run_training(job, lock=lock, on_epoch=begin)
        deaths += 1
        assert trainers(job) == []
    run_training(job, lock=lock, on_epoch=lambda event: told.append(event["epoch"]))
    assert told == sorted(told)
    assert pd.read_csv(Path(job.output, "history.csv"))["epoch"].tolist() == list(range(1, 25))
    assert outcome(job) == outcome(undisturbed)


def test_run_training_interrupted_ends_the_child_with_a_resume_point(
    undisturbed, tmp_path, lock, make_job
):
    """Ctrl-C in the parent; what it leaves goes on in mid-epoch or at its end."""
    job = make_job(tmp_path)

    def interrupt(_):
        raise KeyboardInterrupt

    started = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        run_training(job, lock=lock, on_epoch=interrupt)
    assert trainers(job) == []
    assert time.monotonic() - started < 60
    assert (tmp_path / "state" / "resume.ckpt").exists()
    train(job, on_epoch=lambda _: None, stop=Stop())
    assert outcome(job) == undisturbed


def test_child_told_to_stop_exits_143_and_leaves_no_process(tmp_path, make_job):
    job = make_job(tmp_path, "training.epochs=100000", "training.patience=100000")
    job.write(tmp_path / "job.json")
    child = subprocess.Popen(
        [sys.executable, "-m", "pneumonia.training", tmp_path / "job.json"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    with child:
        for line in child.stdout:
            if b'"epoch"' in line:
                break
        child.terminate()
        assert child.wait(10) == 143
    with pytest.raises(ProcessLookupError):
        os.killpg(child.pid, 0)


def test_child_ends_when_its_parent_dies_and_holds_the_lock_until_then(tmp_path, make_job):
    job = make_job(tmp_path, "training.epochs=100000", "training.patience=100000")
    job.write(tmp_path / "job.json")
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, tmp_path], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    with parent:
        assert parent.stdout.readline() == b"1\n"
        (child,) = children(parent.pid)
        with (tmp_path / "lock").open() as lock:
            held = Path("/proc", str(child), "fd").iterdir()
            assert str(tmp_path / "lock") in {
                os.fspath(descriptor.readlink()) for descriptor in held
            }
            parent.kill()
            wait_until(lambda: not alive(child))
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)


@pytest.fixture(scope="module")
def shared(tmp_path_factory, make_job):
    """A training that two processes shared."""
    folder, told = tmp_path_factory.mktemp("shared"), []
    job = make_job(folder, devices=2)
    with (folder / "lock").open("w") as lock:
        facts = run_training(job, lock=lock.fileno(), on_epoch=told.append)
    return job, facts, told


def test_two_processes_gather_every_val_logit_once(shared):
    """The figures that they told are those of the checkpoint on all val images."""
    job, facts, told = shared
    studies = pd.read_parquet(job.studies).sort_values("image_id", ignore_index=True)
    val = studies[studies["split"] == "val"]
    images = ImagePool(Path(job.pool), studies).gather(val.index.to_numpy())
    trained = checkpoint.load(Path(job.output) / "checkpoint.ckpt")
    with torch.inference_mode():
        logits = trained.network(normalise(images))
    train = studies.loc[studies["split"] == "train", "target"]
    target = torch.tensor(val["target"].to_numpy(), dtype=torch.float32)
    weight = torch.tensor((~train).sum() / train.sum())
    loss = binary_cross_entropy_with_logits(logits, target, pos_weight=weight)
    assert [event["epoch"] for event in told] == [1, 2, 3]
    assert float(loss) == pytest.approx(facts["val_loss"], rel=1e-5)
    assert roc_auc_score(target, logits) == pytest.approx(facts["val_auroc"], abs=1e-6)
    assert trainers(job) == []


def test_two_processes_one_killed_go_on_to_the_same_bytes(shared, tmp_path, lock, make_job):
    job, deaths = make_job(tmp_path, devices=2), []

    def kill(event):
        if event["epoch"] == 1 and not deaths:
            os.kill(max(trainers(job)), signal.SIGKILL)

    facts = None
    while facts is None:
        try:
            facts = run_training(job, lock=lock, on_epoch=kill)
        except TrainingError as error:
            deaths.append(str(error))
        assert trainers(job) == []
    assert len(deaths) == 1
    assert "its process ended by SIGKILL" in deaths[0]
    assert outcome(job) == outcome(shared[0])


def test_two_processes_interrupted_end_at_the_same_step(shared, tmp_path, lock, make_job):
    job = make_job(tmp_path, devices=2)

    def interrupt(_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_training(job, lock=lock, on_epoch=interrupt)
    assert trainers(job) == []
    assert resume.load(tmp_path / "state") is not None
    run_training(job, lock=lock, on_epoch=lambda _: None)
    assert outcome(job) == outcome(shared[0])


def test_two_processes_meet_again_whatever_the_folder_is_called(tmp_path, lock, make_job):
    """What a killed pair left behind keeps nobody from meeting; `#` and `?` are no URL here."""
    (tmp_path / "a#b?c").mkdir()
    job = make_job(tmp_path / "a#b?c", "training.epochs=1", devices=2)
    (Path(job.state) / "meeting").write_bytes(b"left behind")
    run_training(job, lock=lock, on_epoch=lambda _: None)
    assert (Path(job.output) / "checkpoint.ckpt").exists()


def test_more_processes_than_a_side_has_images_for_are_refused(tmp_path, lock, make_job):
    studies_of = make_job(tmp_path).studies
    few = pd.read_parquet(studies_of)
    few = pd.concat([few[few["split"] == "train"], few[few["split"] == "val"].head(3)])
    (tmp_path / "few").mkdir()
    job = replace(make_job(tmp_path / "few", studies=few, devices=2), pool=str(tmp_path / "pool"))
    with pytest.raises(TrainingError, match="at least two images of train and of val"):
        run_training(job, lock=lock, on_epoch=lambda _: None)


def test_two_processes_name_all_images_of_a_step_that_went_wrong(tmp_path, lock, make_job):
    job = make_job(tmp_path, "training.learning_rate=1e30", devices=2)
    with pytest.raises(TrainingError, match=r"got nan, on the images (image-\d+, ){7}image-\d+\."):
        run_training(job, lock=lock, on_epoch=lambda _: None)
    assert trainers(job) == []


def test_run_training_raises_the_childs_error_as_its_class(tmp_path, lock, make_job):
    job = make_job(tmp_path, f"training.weights={tmp_path / 'missing.pth'}")
    with pytest.raises(ConfigError, match=r"missing.pth: expected a file of tensors"):
        run_training(job, lock=lock, on_epoch=lambda _: None)
    assert trainers(job) == []


def test_error_of_the_machine_comes_back_as_oserror():
    """A full disk, a vanished mount: what a further try may mend."""
    error = _as_error({"type": "OSError", "errno": errno.ENOSPC, "message": "no space left"})
    assert type(error) is OSError
    assert error.errno == errno.ENOSPC


@pytest.mark.parametrize("name", sorted(errors_by_name()))
def test_every_error_of_the_project_comes_back_as_one(name):
    error = _as_error({"type": name, "message": "expected one thing, got another"})
    # A DicomError takes a reason as well, which is not told: it comes back as its parent.
    assert type(error) is (DataError if name == "DicomError" else errors_by_name()[name])
    assert str(error) == "expected one thing, got another"


def test_error_that_is_a_bug_comes_back_as_one():
    error = _as_error({"type": "KeyError", "message": "'epoch'"})
    assert type(error) is RuntimeError
    assert "KeyError in the training process" in str(error)
