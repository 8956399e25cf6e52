"""Training: fit one model and keep the weights of its best epoch on val.

In come a `TrainingJob` and the image pool; out go `checkpoint.ckpt` and `history.csv`. Run as

    python -m pneumonia.training JOB.json

it is the child process of `pneumonia.trainer_process`, which says what it prints and how it ends.

Lightning runs what is left of the epochs; where they begin is told by the resume point alone.
"""

import logging
import os
import sys
import warnings
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import pytorch_lightning as lightning
import torch
from lightning_fabric.plugins.environments.lightning import LightningEnvironment
from numpy.typing import NDArray

from pneumonia import checkpoint, network, resume
from pneumonia import config as configuration
from pneumonia.artifacts import Facts, read_table
from pneumonia.batches import Source, TrainingData, open_source
from pneumonia.checkpoint import Checkpoint
from pneumonia.child_process import EventLog, Stop, end_with_parent
from pneumonia.config import Config
from pneumonia.errors import ConfigError, PneumoniaError, TrainingError
from pneumonia.fitting import Fit, StoppedError
from pneumonia.machine import cores, workers
from pneumonia.network import MEAN, STD, Classifier
from pneumonia.pool import ImagePool
from pneumonia.processes import Processes, Together
from pneumonia.seals import digest_file
from pneumonia.trainer_process import MEETING, OnEpoch, TrainingJob

logger = logging.getLogger("pneumonia.training")  # as a child process this is `__main__`

_PRECISIONS: dict[str, Literal["32-true", "bf16-mixed"]] = {"32": "32-true", "bf16": "bf16-mixed"}


def train(job: TrainingJob, *, on_epoch: OnEpoch, stop: Stop) -> Facts:
    """Fit a model as the job says, going on from its last resume point.

    Returns:
        model, epochs run, the best epoch with its val_loss and val_auroc, parameters.

    Raises:
        TrainingError: a class is missing, or a loss is not finite.
        ConfigError: weights or an accelerator that cannot be had.
        StoppedError: `stop` was set.
    """
    processes = Processes.of(job.devices)
    device = _prepare_machine(job, processes)
    studies = read_table(Path(job.studies)).sort_values("image_id", ignore_index=True)
    pool = ImagePool(Path(job.pool), studies)
    train_rows, val_rows = (_rows_of(studies, side) for side in ("train", "val"))
    if min(len(train_rows), len(val_rows)) < 2 * processes.count:
        raise TrainingError(
            f"runtime.devices: expected at least two images of train and of val for each of "
            f"{processes.count}, got {len(train_rows)} and {len(val_rows)}. Set a smaller number."
        )
    resumed = resume.load(Path(job.state))
    progress = resume.Progress(resumed)
    data = TrainingData(
        _source(pool, device, job.config, processes),
        studies["target"].to_numpy(dtype=np.bool_),
        train_rows,
        val_rows,
        job.config,
        first_epoch=progress.epoch,
        first_step=progress.step,
        processes=processes,
    )
    model, settings = _build(job)
    image_ids = studies["image_id"].tolist()
    fit = Fit(model, job, image_ids, data, resumed, on_epoch, stop)
    logger.info(
        "Training %s on %d images (val %d), from epoch %d, step %d.",
        job.model, len(train_rows), len(val_rows), progress.epoch + 1, progress.step + 1,
    )  # fmt: skip
    if not progress.finished(job.config):
        trainer = lightning.Trainer(
            accelerator=job.accelerator,
            devices=job.devices,
            strategy=_strategy(job, processes),
            sync_batchnorm=job.devices > 1 and job.accelerator == "gpu",
            use_distributed_sampler=False,  # `batches` deals each batch out itself
            precision=_PRECISIONS[job.precision],
            max_epochs=job.config.training.epochs - progress.epoch,
            plugins=[LightningEnvironment()],  # whatever cluster this runs on: one machine
            reload_dataloaders_every_n_epochs=1,
            num_sanity_val_steps=0,
            # Each of these costs up to 2 ms a step and does nothing here.
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        with warnings.catch_warnings():  # of Lightning 2.6 about its own use of torch 2.14
            warnings.filterwarnings("ignore", ".*LeafSpec", FutureWarning)
            _fit(trainer, fit, data)
    return _write(job, fit, settings) if processes.first else {}


def main(arguments: list[str]) -> int:
    """Carry out a job as a child process; the exit status."""
    stop = Stop()
    stop.listen()
    end_with_parent()
    events = EventLog()
    job = TrainingJob.read(Path(arguments[0]))
    first = Processes.of(job.devices).first  # the others tell of their faults only
    logging.getLogger("pneumonia").setLevel(logging.INFO if first else logging.WARNING)
    logging.getLogger().addHandler(events)
    logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)
    try:
        facts = train(job, on_epoch=events.tell, stop=stop)
    except StoppedError:
        return 128 + (stop.signal or 0)
    except PneumoniaError as error:
        events.tell({"error": {"type": type(error).__name__, "message": str(error)}})
        return 1
    except OSError as error:
        message = str(error).removeprefix(f"[Errno {error.errno}] ")  # which OSError puts before
        told = {"type": "OSError", "errno": error.errno, "message": message}
        events.tell({"error": told})
        return 1
    except Exception as error:  # a bug: its traceback goes to standard error
        events.tell({"error": {"type": type(error).__name__, "message": str(error)}})
        raise
    if first:
        events.tell({"facts": facts})
    return 0


def _prepare_machine(job: TrainingJob, processes: Processes) -> torch.device:
    """Set torch up for this process and name the device."""
    # Their number changes the last bits of gradients: no setting.
    torch.set_num_threads(max(1, cores() // processes.count))
    # 32 bits means 32, in the validation of a bf16 training too: TF32, which cuDNN takes by itself
    # from Ampere on, keeps 10 bits of the mantissa's 23.
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cuda.matmul.allow_tf32 = False
    if job.accelerator == "cpu":
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise ConfigError(
            "runtime.accelerator: there is a GPU but this torch cannot use it "
            f"(version {torch.__version__}). Install its CUDA build, or set "
            "runtime.accelerator=cpu."
        )
    if processes.count > 1 and torch.cuda.device_count() < processes.count:
        raise ConfigError(
            f"runtime.devices: expected as many GPUs as asked for, {processes.count}, "
            f"got {torch.cuda.device_count()}. Set a smaller number."
        )
    torch.backends.cudnn.benchmark = True
    return torch.device("cuda", processes.rank)


def _source(pool: ImagePool, device: torch.device, config: Config, processes: Processes) -> Source:
    threads = max(1, workers(config) // processes.count)
    return open_source(pool, device, threads, config.runtime.device_memory_fraction)


def _strategy(job: TrainingJob, processes: Processes) -> str | Together:
    if processes.count == 1:
        return "auto"
    return Together(Path(job.state) / MEETING, processes, job.accelerator)


def _fit(trainer: lightning.Trainer, fit: Fit, data: TrainingData) -> None:
    """Let Lightning run; tell a GPU that is too small with the cure."""
    try:
        trainer.fit(fit, datamodule=data)
    except torch.OutOfMemoryError as error:
        size = data.config.training.batch_size
        raise TrainingError(
            f"training.batch_size: expected room for {size} images a step on the GPU, got "
            f"{str(error).partition('. ')[0]}. Set training.batch_size={max(2, size // 2)}."
        ) from error


def _rows_of(studies: pd.DataFrame, side: str) -> NDArray[np.int64]:
    """Positions of a side's studies.

    Raises:
        TrainingError: a class is missing there.
    """
    rows = np.flatnonzero(studies["split"] == side)
    positives = int(studies["target"].iloc[rows].sum())
    if not 0 < positives < len(rows):
        raise TrainingError(
            f"{side}: expected images of both classes, got {positives} positives of "
            f"{len(rows)} images. Give more data or another split."
        )
    return rows


def _build(job: TrainingJob) -> tuple[Classifier, dict[str, Any]]:
    """The model with its first weights, and the settings that the checkpoint tells."""
    settings = configuration.as_dict(job.config.training) | {"precision": job.precision}
    del settings["retrain_after"], settings["seeds"]  # say when and how often to train, not how
    weights, fine_maps = job.config.training.weights, job.config.training.fine_maps
    torch.manual_seed(job.config.training.seed)
    if weights in {"imagenet", "none"}:
        model = network.build(job.model, weights=weights, fine_maps=fine_maps)
    else:
        model = checkpoint.build_from(Path(weights), job.model, fine_maps=fine_maps)
        digest = digest_file(Path(weights))  # no path: the same run, the same bytes
        settings["weights"] = f"sha256:{digest}"
    return model.to(memory_format=torch.channels_last), settings


def _write(job: TrainingJob, fit: Fit, settings: dict[str, Any]) -> Facts:
    """Write the best epoch's checkpoint and the history."""
    best = dict(fit.progress.best or {})
    tensors = best.pop("state_dict")
    fine_maps = job.config.training.fine_maps
    model = network.build(job.model, weights=tensors, fine_maps=fine_maps)
    output = Path(job.output)
    checkpoint.save(
        Checkpoint(
            model=job.model,
            network=model,
            image_size=job.config.shards.image_size,
            crop_size=job.config.crop_size,
            mean=MEAN,
            std=STD,
            fine_maps=fine_maps,
            training=settings,
            **best,
        ),
        output / "checkpoint.ckpt",
    )
    pd.DataFrame(fit.progress.history).to_csv(output / "history.csv", index=False)
    return {
        "model": job.model,
        "epochs": len(fit.progress.history),
        "epoch": best["epoch"],
        "val_loss": best["val_loss"],
        "val_auroc": best["val_auroc"],
        "parameters": sum(weight.numel() for weight in model.parameters()),
    }


if __name__ == "__main__":
    os._exit(main(sys.argv[1:]))  # all is written; torch would take two seconds to take leave
