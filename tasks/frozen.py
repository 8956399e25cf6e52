"""A finished model of a run, frozen: its weights, its calibration and its thresholds.

For whoever applies it to other files: nothing here trains, and nothing is written to its workspace.
"""

from dataclasses import dataclass
from pathlib import Path

from pneumonia.artifacts import Artifact
from pneumonia.config import ShardsConfig
from pneumonia.errors import ConfigError, StaleArtifactError
from pneumonia.workspace import Workspace
from tasks.predictions import PREDICTIONS
from tasks.shards import SHARDS
from tasks.training import TRAINING


@dataclass(frozen=True)
class FrozenModel:
    """A model of a run that is finished up to its predictions.

    Args:
        model, run: its name and its run's.
        training, predictions: its artifacts; the calibration is of this very checkpoint.
        shards: how its run turned files into images, as new files must be.
    """

    model: str
    run: str
    training: Artifact
    predictions: Artifact
    shards: ShardsConfig


def frozen_model(root: Path, run: str, model: str) -> FrozenModel:
    """Find a finished model.

    Raises:
        ConfigError: there is no such run, or it has no such finished model.
        StaleArtifactError: the run's calibration is of another checkpoint.
    """
    links = Workspace(root).links_of(run)
    of_training, of_predictions = (stage.link_name("") for stage in (TRAINING, PREDICTIONS))
    models = [
        link.removeprefix(of_training)
        for link in links
        if link.startswith(of_training)
        and f"{of_predictions}{link.removeprefix(of_training)}" in links
    ]
    if model not in models:
        raise ConfigError(
            f"--model: expected one that the run {run!r} has finished "
            f"({', '.join(models) or 'it has none'}), got {model!r}. Name one of them, or another "
            "run or workspace."
        )
    training = Workspace(root).finished(run, TRAINING.link_name(model))
    predictions = Workspace(root).finished(run, PREDICTIONS.link_name(model))
    if predictions.manifest.inputs["checkpoint"] != training.sha256("checkpoint.ckpt"):
        raise StaleArtifactError(
            f"{predictions.reference}: expected the calibration of {training.reference}, got that "
            f"of an earlier checkpoint of {model}. Bring the run up to date with `pneumonia run`."
        )
    accept = Workspace(root).finished(run, SHARDS.name).manifest.configuration["accept"]
    shards = ShardsConfig(
        image_size=training.manifest.configuration["image_size"],
        window=training.manifest.configuration["window"],
        accept=tuple(accept),
    )
    return FrozenModel(model, run, training, predictions, shards)
