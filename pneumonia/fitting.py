"""Fitting: what Lightning does at each step and at each epoch's end of a training.

Everything a step does follows from the job and the step's number: its images and their
augmentation (`batches.Epoch`), the learning rate, the seed. So a resume point is the network, its
average, the optimiser and a few figures, and a training that goes on from one gives the same
weights: to the bit on a CPU, as long as the process may use as many cores and at most two processes
share the training; but for the last bits on another number of cores, and on a GPU, where cuDNN
takes the kernels that it finds fastest.
"""

import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as lightning
import torch
from pytorch_lightning.utilities.types import OptimizerLRScheduler
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits
from torch.optim.lr_scheduler import LambdaLR
from torchmetrics.functional.classification import binary_auroc
from tqdm import tqdm

from pneumonia import resume
from pneumonia.batches import Batch, Rows, TrainingData
from pneumonia.checkpoint import plain_tensors
from pneumonia.child_process import Stop
from pneumonia.errors import TrainingError
from pneumonia.network import Classifier
from pneumonia.optimisation import Average, make_optimiser, one_cycle
from pneumonia.trainer_process import OnEpoch, TrainingJob

# To look at a loss is to wait for the GPU: there only now and then. Several processes learn at a
# check that one was told to stop, which must leave time to write the resume point.
_STEPS_BETWEEN_CHECKS = {"cpu": 1, "cuda": 50}
_STEPS_BETWEEN_SHARED_CHECKS = {"cpu": 1, "cuda": 5}


class StoppedError(Exception):
    """The process was told to end; the resume point is written."""


class Fit(lightning.LightningModule):
    """Lightning's view of a training: what happens at a step and at an epoch's end."""

    def __init__(
        self,
        model: Classifier,
        job: TrainingJob,
        image_ids: list[str],
        data: TrainingData,
        resumed: dict[str, Any] | None,
        on_epoch: OnEpoch,
        stop: Stop,
    ) -> None:
        super().__init__()
        self.network = model
        self.job = job
        self.progress = resume.Progress(resumed)
        self._image_ids = image_ids
        self._data = data
        self._resumed = resumed
        self._on_epoch = on_epoch
        self._stop = stop
        self._processes = data.processes
        self._unchecked: list[tuple[Tensor, Rows]] = []
        self._val_logits: list[Tensor] = []
        self._started = time.monotonic()
        self._bar = tqdm(
            desc=job.model,
            total=job.config.training.epochs * data.steps,
            initial=self._done_steps,
            unit="step",
            mininterval=0.5,
            disable=not (sys.stderr.isatty() and data.processes.first),
        )
        positives = int(data.target[data.train].sum())
        # Both classes weigh alike in the loss; calibration takes the shift of the logits back.
        weight = torch.tensor((len(data.train) - positives) / positives)
        self.register_buffer("positive_weight", weight, persistent=False)

    @property
    def _done_steps(self) -> int:
        return self.progress.epoch * self._data.steps + self.progress.step

    @property
    def _steps_between_checks(self) -> int:
        alone = self._processes.count == 1
        return (_STEPS_BETWEEN_CHECKS if alone else _STEPS_BETWEEN_SHARED_CHECKS)[self.device.type]

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """AdamW under one cycle, counted from the step at which this process begins."""
        settings = self.job.config.training
        optimiser = make_optimiser(self.network, settings.learning_rate, settings.weight_decay)
        first = self._done_steps
        schedule = LambdaLR(optimiser, lambda step: self._rate(first + step))
        return {
            "optimizer": optimiser,
            "lr_scheduler": {"scheduler": schedule, "interval": "step"},
        }

    def on_fit_start(self) -> None:
        """Hear signals again: Lightning's own handler would end an epoch without a resume point."""
        if self._stop.listening:
            self._stop.listen()

    def on_train_start(self) -> None:
        """Put back what a resume point holds, now that all is on its device."""
        self.average = Average(self.network, self._data.steps)
        if self._resumed:
            self.network.load_state_dict(self._resumed["network"])
            self.average.network.load_state_dict(self._resumed["average"])
            self.trainer.optimizers[0].load_state_dict(self._resumed["optimiser"])
            self._resumed = None

    def on_train_epoch_start(self) -> None:
        """Start the epoch's clock."""
        self._started = time.monotonic()

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:  # noqa: ARG002 (Lightning's)
        """The class-weighted log loss of a batch."""
        # Anew at each step, so that a network with dropout can be resumed too.
        torch.manual_seed((self.job.config.training.seed << 32) + self._done_steps)
        return self._loss(self.network(batch.inputs), batch.target)

    def on_train_batch_end(self, outputs: Any, batch: Batch, batch_idx: int) -> None:  # noqa: ANN401, ARG002 (Lightning's)
        """Average the weights, look at the losses, end if told so."""
        self.average.update(self.network, self._done_steps)
        self._unchecked.append((outputs["loss"].detach(), batch.rows))
        self.progress.step += 1
        self._bar.update()
        last = self.progress.step == self._data.steps
        told = self._stop.signal is not None
        at_once = told and self._processes.count == 1  # else they learn it at their next check
        if last or at_once or len(self._unchecked) >= self._steps_between_checks:
            stop = self._check_losses(told)
            if stop and not last:  # at the last step the epoch's end follows
                self._save()
                raise StoppedError

    def on_validation_epoch_start(self) -> None:
        """Forget the last epoch's logits."""
        self._val_logits = []
        # On CPUs each process has met other images, so their normalisation's statistics differ.
        self._processes.take_from_first(self.average.tensors)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:  # noqa: ARG002 (Lightning's)
        """Collect logits, in 32 bits as `predictions` will; figures come once, from all of them."""
        with torch.autocast(self.device.type, enabled=False):
            self._val_logits.append(self.average.network(batch.inputs))

    def on_train_epoch_end(self) -> None:
        """Note the epoch's figures, keep the best weights, write the resume point, tell it."""
        progress, settings = self.progress, self.job.config.training
        logits = self._processes.whole(torch.cat(self._val_logits), len(self._data.val))
        target = self._data.target[self._data.val].to(logits.device)
        row = {
            "epoch": progress.epoch + 1,
            "train_loss": float(np.mean(progress.losses)),
            "val_loss": float(self._loss(logits, target)),
            "val_auroc": float(binary_auroc(logits.double().sigmoid(), target.int())),
            "learning_rate": settings.learning_rate * self._rate(self._done_steps - 1),
        }
        if not np.isfinite(row["val_loss"]):
            raise TrainingError(
                f"epoch {row['epoch']}: expected a finite loss on val, got {row['val_loss']}. "
                "Lower training.learning_rate."
            )
        progress.history.append(row)
        if progress.best is None or row["val_loss"] < progress.best["val_loss"]:
            state = plain_tensors(self.average.network.state_dict())
            progress.best = {name: row[name] for name in ("epoch", "val_loss", "val_auroc")}
            progress.best["state_dict"] = state
        progress.epoch, progress.step, progress.losses = progress.epoch + 1, 0, []
        self._save()
        seconds = round(time.monotonic() - self._started, 3)
        if self._processes.first:
            self._on_epoch({**row, "epochs": settings.epochs, "seconds": seconds})
        self._bar.set_postfix(val_loss=row["val_loss"], val_auroc=row["val_auroc"])
        told = torch.tensor(float(self._stop.signal is not None), device=self.device)
        if self._processes.mean(told):
            raise StoppedError
        self.trainer.should_stop = progress.finished(self.job.config)

    def teardown(self, stage: str) -> None:  # noqa: ARG002 (Lightning's)
        """Leave the bar as it stands."""
        self._bar.close()

    def _rate(self, step: int) -> float:
        settings = self.job.config.training
        return one_cycle(step, settings.epochs * self._data.steps, settings.warmup_fraction)

    def _loss(self, logits: Tensor, target: Tensor) -> Tensor:
        weight = self.get_buffer("positive_weight")
        return binary_cross_entropy_with_logits(logits.float(), target, pos_weight=weight)

    def _check_losses(self, told_to_stop: bool) -> bool:
        """Move the losses to the host; stop at the first that is not finite.

        Returns:
            Whether any process was told to stop: they learn it together, to end at the same step.
        """
        told = torch.tensor(float(told_to_stop), device=self.device)
        every = torch.stack([*(loss for loss, _ in self._unchecked), told])
        *losses, stop = self._processes.mean(every).tolist()
        for loss, (_, rows) in zip(losses, self._unchecked, strict=True):
            if not np.isfinite(loss):
                step = self.progress.epoch * self._data.steps + len(self.progress.losses) + 1
                names = ", ".join(self._image_ids[row] for row in self._processes.all_rows(rows))
                raise TrainingError(
                    f"step {step}: expected a finite loss, got {loss}, on the images {names}. "
                    "Look at them, or lower training.learning_rate."
                )
            self.progress.losses.append(loss)
        self._unchecked = []
        return bool(stop)

    def _save(self) -> None:
        """Write a resume point."""
        if not self._processes.first:
            return
        content = {
            "network": plain_tensors(self.network.state_dict()),
            "average": plain_tensors(self.average.network.state_dict()),
            "optimiser": self.trainer.optimizers[0].state_dict(),
            **vars(self.progress),
        }
        resume.save(content, Path(self.job.state))
