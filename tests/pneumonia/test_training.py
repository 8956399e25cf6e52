import json
import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from pneumonia import checkpoint, network, resume, training
from pneumonia.child_process import Stop
from pneumonia.config import parse_settings
from pneumonia.errors import ConfigError, TrainingError
from pneumonia.fitting import StoppedError
from pneumonia.machine import cores
from pneumonia.processes import Processes
from pneumonia.training import train


def run(job, on_epoch=lambda _: None, stop=None):
    return train(job, on_epoch=on_epoch, stop=stop or Stop())


def outcome(job):
    """The bytes of a training's files."""
    return {path.name: path.read_bytes() for path in sorted(Path(job.output).iterdir())}


def history(job):
    return pd.read_csv(Path(job.output) / "history.csv")


@pytest.fixture(scope="module")
def finished(tmp_path_factory, make_job):
    """A job that ran undisturbed, its facts and what it told."""
    job, told = make_job(tmp_path_factory.mktemp("finished")), []
    return job, run(job, told.append), told


def test_train_writes_a_checkpoint_that_predicts(finished):
    job, facts, _ = finished
    trained = checkpoint.load(Path(job.output) / "checkpoint.ckpt")
    assert (trained.model, trained.image_size, trained.crop_size) == ("custom_cnn", 32, 28)
    assert (trained.epoch, trained.val_loss) == (facts["epoch"], facts["val_loss"])
    assert trained.training["precision"] == "32"
    assert torch.isfinite(trained.network(torch.zeros(2, 1, 32, 32))).all()


def test_train_tells_and_notes_each_epoch(finished):
    job, facts, told = finished
    table = history(job)
    assert table["epoch"].tolist() == [event["epoch"] for event in told] == [1, 2, 3]
    assert list(table.columns) == [
        "epoch",
        "train_loss",
        "val_loss",
        "val_auroc",
        "learning_rate",
    ]
    assert facts["val_loss"] == table["val_loss"].min()
    assert json.loads(json.dumps(told))[0]["epochs"] == 3


def test_train_same_job_gives_same_bytes(finished, tmp_path, make_job):
    job = make_job(tmp_path)
    run(job)
    assert outcome(job) == outcome(finished[0])


def test_train_row_order_of_the_table_changes_nothing(finished, tmp_path, make_job, make_pool):
    job = make_job(tmp_path, studies=make_pool(tmp_path).sample(frac=1, random_state=0))
    run(job)
    assert outcome(job) == outcome(finished[0])


def test_train_number_of_workers_changes_nothing(finished, tmp_path, make_job):
    """`runtime.workers` warps images; the threads of the arithmetic are the machine's cores."""
    job = make_job(tmp_path, "runtime.workers=3")
    run(job)
    assert torch.get_num_threads() == cores()
    assert outcome(job) == outcome(finished[0])


def test_train_another_seed_gives_other_weights(finished, tmp_path, make_job):
    job = make_job(tmp_path, "training.seed=1")
    run(job)
    assert outcome(job)["checkpoint.ckpt"] != outcome(finished[0])["checkpoint.ckpt"]


@pytest.mark.parametrize("steps", [1, 5, 11])
def test_train_stopped_at_a_step_goes_on_to_the_same_bytes(
    finished, tmp_path, monkeypatch, steps, make_job
):
    """Told to stop in mid-epoch or at an epoch's last step, which is left for its end."""
    job, stop = make_job(tmp_path), Stop()
    forward, calls = network.Classifier.forward, []

    def counted(self, inputs):
        calls.append(self.training)
        if sum(calls) == steps:
            stop.signal = 15
        return forward(self, inputs)

    monkeypatch.setattr(network.Classifier, "forward", counted)
    with pytest.raises(StoppedError):
        run(job, stop=stop)
    monkeypatch.undo()
    point = resume.load(Path(job.state))
    assert point["epoch"] * 4 + point["step"] == steps
    run(job)
    assert outcome(job) == outcome(finished[0])


def test_train_told_to_stop_between_two_epochs_goes_on(finished, tmp_path, make_job):
    """The signal comes when the epoch's figures have just been told."""
    job, stop = make_job(tmp_path), Stop()

    def told(_):
        stop.signal = signal.SIGTERM

    with pytest.raises(StoppedError):
        run(job, told, stop)
    assert resume.load(Path(job.state))["epoch"] == 1
    run(job)
    assert outcome(job) == outcome(finished[0])


def test_train_goes_on_from_the_point_before_a_torn_one(finished, tmp_path, make_job):
    job, stop = make_job(tmp_path), Stop()

    def stop_after_two(event):
        stop.signal = 15 if event["epoch"] == 2 else None

    with pytest.raises(StoppedError):
        run(job, stop_after_two, stop)
    torn = Path(job.state) / "resume.ckpt"
    torn.write_bytes(torn.read_bytes()[:-100])
    told = []
    run(job, told.append)
    assert [event["epoch"] for event in told] == [2, 3]
    assert outcome(job) == outcome(finished[0])


def test_train_killed_after_its_last_epoch_only_writes(finished, tmp_path, make_job):
    job = make_job(tmp_path)
    run(job)
    for path in Path(job.output).iterdir():
        path.unlink()
    told = []
    run(job, told.append)
    assert told == []
    assert outcome(job) == outcome(finished[0])


def test_train_learns_what_can_be_seen(tmp_path, make_job, make_pool):
    job = make_job(
        tmp_path,
        "training.epochs=8",
        "training.batch_size=16",
        "training.learning_rate=0.003",
        studies=make_pool(tmp_path, n=240),
    )
    assert run(job)["val_auroc"] > 0.9
    losses = history(job)["train_loss"]
    assert losses.iloc[-1] < losses.iloc[0]


def test_train_stops_early_and_keeps_the_best_epoch(tmp_path, make_job):
    """A rate that wrecks the weights: val gets worse at once."""
    job = make_job(tmp_path, "training.epochs=12", "training.patience=2")
    wrecked = parse_settings(["training.learning_rate=3.0"]).training.learning_rate
    settings = replace(job.config.training, learning_rate=wrecked)
    job = replace(job, config=replace(job.config, training=settings))
    facts = run(job)
    table = history(job)
    assert facts["epochs"] == len(table) < 12
    assert facts["epoch"] == int(table["epoch"][table["val_loss"].idxmin()])
    assert len(table) - facts["epoch"] == 2


def test_train_from_a_file_of_weights_names_it_by_content(finished, tmp_path, make_job):
    source = Path(finished[0].output) / "checkpoint.ckpt"
    first, second = tmp_path / "first", tmp_path / "second"
    outcomes = []
    for folder in (first, second):
        folder.mkdir()
        copy = folder / "weights.ckpt"
        copy.write_bytes(source.read_bytes())
        job = make_job(folder, f"training.weights={copy}", "training.epochs=1")
        run(job)
        outcomes.append(outcome(job))
    assert outcomes[0] == outcomes[1]
    trained = checkpoint.load(first / "output" / "checkpoint.ckpt")
    assert trained.training["weights"].startswith("sha256:")


def test_train_in_bf16_runs_to_the_end(tmp_path, make_job):
    facts = run(replace(make_job(tmp_path, "training.epochs=1"), precision="bf16"))
    assert np.isfinite(facts["val_loss"])


def test_train_loss_that_is_not_finite_names_step_and_images(tmp_path, make_job):
    weights = network.build("custom_cnn").state_dict()
    weights["head.bias"] = torch.tensor([float("nan")])
    torch.save(weights, tmp_path / "nan.pth")
    job = make_job(tmp_path, f"training.weights={tmp_path / 'nan.pth'}")
    with pytest.raises(
        TrainingError, match=r"step 1: expected a finite loss, got nan.*image-0\d\d"
    ):
        run(job)


def test_train_side_without_both_classes_raises(tmp_path, make_job, make_pool):
    studies = make_pool(tmp_path)
    studies.loc[studies["split"] == "val", "target"] = False
    with pytest.raises(TrainingError, match="val: expected images of both classes, got 0 pos"):
        run(make_job(tmp_path, studies=studies))


@pytest.mark.parametrize("precision", ["32", "bf16"])
def test_train_prepared_for_a_gpu_takes_no_tf32(tmp_path, monkeypatch, make_job, precision):
    """What is called 32 bits has all its bits, in the validation of a bf16 training too."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)  # torch's own default
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", False)
    job = replace(make_job(tmp_path), accelerator="gpu", precision=precision)
    assert training._prepare_machine(job, Processes()).type == "cuda"
    assert not torch.backends.cudnn.allow_tf32
    assert not torch.backends.cuda.matmul.allow_tf32


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_train_on_a_gpu_that_torch_cannot_use_is_refused(tmp_path, make_job):
    with pytest.raises(ConfigError, match="Install its CUDA build"):
        run(replace(make_job(tmp_path), accelerator="gpu"))
