"""New files through a finished model of a workspace: its images, calibration and threshold."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pandas as pd

from pneumonia.config import Config, RuntimeConfig
from pneumonia.errors import ConfigError
from pneumonia.machine import resolve_accelerator, workers
from pneumonia.workspace import Workspace
from tasks.evaluation import EVALUATION
from tasks.frozen import frozen_model


def predict_paths(
    paths: Sequence[Path],
    *,
    workspace: Path,
    run: str,
    model: str,
    config: Config,
    operating_point_given: bool,
) -> pd.DataFrame:
    """Predict DICOM files and all `*.dcm` below folders.

    Args:
        operating_point_given: take that of `config`, not the one the run was evaluated at.

    Returns:
        file, image_id, logit, probability, positive, reason; a refused file has only a reason.

    Raises:
        ConfigError: a path is missing or holds no file, or the run has no such finished model.
        StaleArtifactError: the run's calibration is of another checkpoint.
    """
    from pneumonia.checkpoint import load
    from pneumonia.new_files import predict_files

    _refuse_other_settings(config)
    for path in paths:
        if not path.exists():
            raise ConfigError(
                f"{path}: expected a DICOM file or a folder of them, got nothing. Mend the path."
            )
    frozen = frozen_model(workspace, run, model)
    point = config.evaluation.operating_point
    if not operating_point_given and Workspace(workspace).linked(run, EVALUATION.name):
        evaluation = Workspace(workspace).finished(run, EVALUATION.name)
        point = evaluation.manifest.configuration["operating_point"]
    table = predict_files(
        load(frozen.training.file("checkpoint.ckpt")),
        paths,
        frozen.predictions.json("operating_points.json"),
        shards=frozen.shards,
        operating_point=point,
        accelerator=resolve_accelerator(config),
        workers=workers(config),
    )
    if table.empty:
        raise ConfigError(f"{paths[0]}: expected *.dcm files below it, got none. Mend the path.")
    return table


def _refuse_other_settings(config: Config) -> None:
    """Everything but operating point and machine is the model's own."""
    default = Config().evaluation.operating_point
    evaluation = replace(config.evaluation, operating_point=default)
    fixed = replace(config, runtime=RuntimeConfig(), evaluation=evaluation)
    if fixed != Config():
        raise ConfigError(
            "--set: expected evaluation.operating_point or a setting of runtime, got another one, "
            "which is fixed in the model. Leave it out."
        )
