"""The external test: a finished model, frozen, on another labelled data set.

No stage of a run: it reads the artifacts of a home run from that run's workspace, where it writes
nothing, and labels and images of the other data set from a workspace of its own.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd

from pneumonia.artifacts import Artifact, Facts, digest, digest_table, write_json
from pneumonia.config import SIMULATION, CamConfig, Config, EvaluationConfig, SplitConfig, as_dict
from pneumonia.csv_files import write_rows
from pneumonia.errors import StaleArtifactError
from pneumonia.machine import resolve_accelerator, workers
from pneumonia.people import PATIENT_KEY, check_same_key, key_setting, patient_key
from pneumonia.persons import read_persons
from pneumonia.split import STUDY_COLUMNS
from pneumonia.workspace import Scratch, Workspace
from tasks.caching import Context, Plan, Stage
from tasks.cam import BOX_COLUMNS, CAM, PREDICTION_COLUMNS
from tasks.evaluation import EVALUATION
from tasks.frozen import FrozenModel, frozen_model
from tasks.labels import LABELS
from tasks.predictions import ROW
from tasks.report import choose_errors, choose_samples, digest_page, films_of, lineage_row
from tasks.shards import SHARDS
from tasks.split import SPLIT, check_split, find_grouping, warn_of_hashes_without_key

EXTERNAL = "external"

_CURE = f"Unless the names are public, set {PATIENT_KEY} and make the home run again, then this."

IMAGE_COLUMNS = ("image_id", "pixel_digest", "pool", "row")
KNOWN = ("image_id", "pixel_digest")


@dataclass(frozen=True)
class Home:
    """A finished model and the run that made it.

    Args:
        labels, shards, split, evaluation: the run's artifacts.
        pool: the folder of its image shards.
        cam: how its maps were drawn.
    """

    frozen: FrozenModel
    labels: Artifact
    shards: Artifact
    split: Artifact
    evaluation: Artifact
    pool: Path
    cam: CamConfig

    def config(self, asked: Config) -> Config:
        """The home run's settings, but for the machine and for which files are good enough."""
        mse = self.split.manifest.configuration["max_match_mse"]
        return Config(
            shards=replace(
                self.frozen.shards,
                max_quarantined=asked.shards.max_quarantined,
                quiet_seconds=asked.shards.quiet_seconds,
            ),
            split=SplitConfig(max_match_mse=mse, max_unmapped=asked.split.max_unmapped),
            evaluation=EvaluationConfig(**self.evaluation.manifest.configuration),
            cam=self.cam,
            runtime=asked.runtime,
        )

    def tables(self) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
        """Studies, predictions and images of the run, the images with their side."""
        studies = self.split.table("studies.parquet", STUDY_COLUMNS)
        predictions = self.frozen.predictions.table("predictions.parquet", PREDICTION_COLUMNS)
        images = self.shards.table("images.parquet", IMAGE_COLUMNS)
        sides = studies[["image_id", "split"]]
        return studies, predictions, sides.merge(images, on="image_id", validate="1:1")

    def known(self, images: pd.DataFrame) -> pd.DataFrame:
        """Name and pixels of the run's images, and of those that a kept model was fitted on."""
        fitted = self.frozen.training.table("rows.parquet", KNOWN)
        return pd.concat([fitted, images[list(KNOWN)]]).drop_duplicates()

    def lineage(self) -> list[dict[str, Any]]:
        """A row per artifact of the run, for the page."""
        names = ("labels", "shards", "split", "training", "predictions", "evaluation")
        artifacts = [
            self.labels, self.shards, self.split, self.frozen.training, self.frozen.predictions,
            self.evaluation,
        ]  # fmt: skip
        return [
            lineage_row(f"home: {name}", artifact)
            for name, artifact in zip(names, artifacts, strict=True)
        ]


def home_of(root: Path, run: str, model: str) -> Home:
    """Find a finished model with what the external test sets beside it.

    Raises:
        ConfigError: the run has no such finished model, or no evaluation.
        StaleArtifactError: calibration, split and images are not of one state of the run.
    """
    workspace, frozen = Workspace(root), frozen_model(root, run, model)
    labels, shards, split, evaluation = (
        Workspace(root).finished(run, stage.name) for stage in (LABELS, SHARDS, SPLIT, EVALUATION)
    )
    check_split(run, labels, shards, split)
    studies = split.table("studies.parquet", ["image_id", "split", "target"])
    images = shards.table("images.parquet", KNOWN)
    rows = studies[studies["split"] != "train"].merge(images, on="image_id", validate="1:1")
    if frozen.predictions.manifest.inputs["val and test images"] != digest_table(rows, ROW):
        raise StaleArtifactError(
            f"{frozen.predictions.reference}: expected predictions of the images and sides of "
            f"{split.reference}, got those of others. Bring the run {run!r} up to date with "
            "`pneumonia run`."
        )
    cam = CamConfig()
    if workspace.linked(run, CAM.link_name(model)):
        cam = CamConfig(
            **Workspace(root).finished(run, CAM.link_name(model)).manifest.configuration["cam"]
        )
    return Home(frozen, labels, shards, split, evaluation, workspace.pool, cam)


def external_stage(home: Home, data: str) -> Stage:
    """The test of one finished model as a task that is cached by content.

    Args:
        data: what the other data set is called on the page.
    """

    def plan_external(context: Context) -> Plan:
        return _plan(context, home, data)

    return Stage(
        name=EXTERNAL,
        version=1,
        plan=plan_external,
        describe=describe,
        needs=("labels", "shards"),
        per_model=True,
    )


def _plan(context: Context, home: Home, data: str) -> Plan:
    """Read the model, what made it, and the other data set."""
    request, config, frozen = context.request, context.request.config, home.frozen
    shards = context.artifact("shards")
    labels = context.artifact("labels").table("labels.parquet")
    boxes = context.artifact("labels").table("boxes.parquet", BOX_COLUMNS)
    images, quarantine = shards.table("images.parquet"), shards.table("quarantine.parquet")
    grouping = None if request.by_image else find_grouping(request)
    persons = None if grouping is None else read_persons(grouping, config.split.max_match_mse)
    home_studies, home_predictions, home_images = home.tables()
    home_boxes = home.labels.table("boxes.parquet", BOX_COLUMNS)
    known = home.known(home_images)
    decisions = frozen.predictions.json("operating_points.json")
    lineage = home.lineage() + [
        lineage_row(f"here: {name}", context.artifact(name)) for name in ("labels", "shards")
    ]
    simulated = (request.raw / SIMULATION).is_file()
    home_data = home.evaluation.json("evaluation.json")["data"]
    home_simulated = home_data.get("simulated", False)
    people = home_studies[["patient_id", "split"]] if home_data["grouping"] == "person" else None
    key = patient_key()
    check_same_key(home.split.manifest.configuration, key)
    warn_of_hashes_without_key(request, grouping, persons, _CURE)
    configuration: dict[str, Any] = {
        "model": frozen.training.manifest.configuration,
        **key_setting(key),
        **{name: as_dict(getattr(config, name)) for name in ("shards", "evaluation", "cam")},
    }
    del configuration["shards"]["quiet_seconds"], configuration["shards"]["images_per_shard"]

    def write(scratch: Scratch) -> Facts:
        import numpy as np

        from pneumonia.cam import make_cam
        from pneumonia.checkpoint import load
        from pneumonia.duplicates import count_duplicates, find_duplicates
        from pneumonia.external import (
            evaluate_external,
            external_predictions,
            external_studies,
            in_place_of_test,
        )
        from pneumonia.pool import ImagePool
        from pneumonia.predictions import predict_logits
        from pneumonia.report import write_report

        model, output = frozen.model, scratch.output
        machine: Any = {
            "accelerator": resolve_accelerator(config),
            "workers": workers(config),
        }
        studies, facts = external_studies(
            labels, boxes, images, known, persons=persons, persons_path=grouping,
            max_unmapped=config.split.max_unmapped, home_people=people, patient_key=key,
        )  # fmt: skip
        here = studies[["image_id"]].merge(images[list(IMAGE_COLUMNS)], on="image_id")
        val = home_images[home_images["split"] == "val"]
        shown = [_placed(here, context.workspace.pool), _placed(val, home.pool)]
        pool = ImagePool(context.workspace.pool, pd.concat(shown, ignore_index=True))
        everyone = in_place_of_test(home_studies, studies)
        stored = pd.concat([_placed(home_images, home.pool), shown[0]])[list(IMAGE_COLUMNS)]
        everyone = everyone.merge(stored, on="image_id", validate="1:1")
        duplicates = find_duplicates(everyone, ImagePool(context.workspace.pool, everyone))
        duplicates = duplicates[duplicates["split"] == "test"]  # of the home run, its split tells
        write_rows(duplicates, output / "duplicates.csv")
        facts["duplicates"] = count_duplicates(duplicates, pool.side)
        facts["simulated"] = simulated
        checkpoint = load(frozen.training.file("checkpoint.ckpt"))
        logit = predict_logits(checkpoint, pool, np.arange(len(studies)), **machine)
        predictions = external_predictions(studies, logit, decisions)
        evaluation = evaluate_external(
            (home_studies, home_predictions),
            (studies, predictions),
            decisions,
            facts | {"quarantined": shards.manifest.facts["quarantined"]},
            config.evaluation,
            {"model": model, "run": frozen.run, "data": data, "home_simulated": home_simulated},
        )
        cam = make_cam(
            checkpoint,
            pool,
            in_place_of_test(home_studies, studies),
            pd.concat([home_boxes, boxes[boxes["image_id"].isin(studies["image_id"])]]),
            in_place_of_test(home_predictions, predictions),
            decisions,
            config.cam,
            config.evaluation,
            output,
            **machine,
        )
        write_json(evaluation, output / "evaluation.json")
        write_json(cam, output / "cam.json")
        _write_predictions(studies, predictions, evaluation["models"][model]["threshold"], output)
        write_report(
            output,
            run=frozen.run,
            evaluation=evaluation,
            cams={model: (cam, output)},
            histories={model: pd.read_csv(frozen.training.file("history.csv"))},
            predictions={model: predictions},
            studies=studies,
            quarantine=quarantine,
            duplicates=duplicates,
            samples=films_of(pool, choose_samples(studies)),
            errors={
                model: films_of(
                    pool,
                    choose_errors(studies, predictions, evaluation["models"][model]["threshold"]),
                )
            },
            split_digest=home.split.sha256("split.csv"),
            lineage=lineage,
            configuration=configuration,
            home=(home_studies, {model: home_predictions}),
        )
        shift = evaluation["external"]["shift"]
        return {
            "images": len(studies),
            "left_out": sum(facts["left_out"].values()),
            "people_of_home": facts["people_of_home"],
            "auroc": shift["here"]["auroc"],
            "home_auroc": shift["home"]["auroc"],
        }

    inputs = {
        "checkpoint": frozen.training.sha256("checkpoint.ckpt"),
        "history": frozen.training.sha256("history.csv"),
        "home studies": digest_table(home_studies, STUDY_COLUMNS),
        "home predictions": digest([digest_table(home_predictions, PREDICTION_COLUMNS), decisions]),
        "home images": digest_table(known, KNOWN, by=KNOWN),
        "home boxes": digest_table(home_boxes, BOX_COLUMNS, by=BOX_COLUMNS),
        "labels": digest_table(labels, ["image_id", "target", "class"]),
        "boxes": digest_table(boxes, BOX_COLUMNS, by=BOX_COLUMNS),
        "images": digest_table(images, ["image_id", "pixel_digest"]),
        "refused files": digest_table(quarantine, ["file", "reason"], by=["file"]),
        "persons": "none" if persons is None else digest_table(persons, ["image_id", "person"]),
        "artifacts": digest(lineage),
        "page": digest_page(),
        "simulated": digest([simulated, home_simulated]),
    }
    settings = {"run": frozen.run, "data": data, "configuration": configuration}
    return Plan(inputs, settings, write)


def _placed(images: pd.DataFrame, pool: Path) -> pd.DataFrame:
    """Images with the folder of their shard for its key, for a pool of two workspaces."""
    return images.assign(pool=[str(pool.absolute() / key) for key in images["pool"]])


def _write_predictions(
    studies: pd.DataFrame, predictions: pd.DataFrame, threshold: float, output: Path
) -> None:
    table = studies[["image_id", "target"]].merge(predictions, on="image_id", validate="1:1")
    table["positive"] = table["probability"] >= threshold
    columns = ["image_id", "logit", "probability", "positive", "target"]
    write_rows(table[columns], output / "predictions.csv")


def describe(facts: Facts) -> str:
    """One half line for the console."""
    told = [
        "undefined" if figure["value"] is None else f"{figure['value']:.3f}"
        for figure in (facts["auroc"], facts["home_auroc"])
    ]
    left_out = (
        f", {facts['left_out']:,} left out as known to the model" if facts["left_out"] else ""
    )
    shared = facts["people_of_home"]
    if shared and shared["people"]:
        left_out += f", {shared['people']:,} people named as some of the home run"
    return f"AUROC {told[0]} on {facts['images']:,} images{left_out}; on the home test {told[1]}"
