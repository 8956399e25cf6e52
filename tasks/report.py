"""The `report` stage: everything a run has found, on one page, and its answer in Prefect's UI."""

import hashlib
import logging
import os
from importlib.resources import files
from typing import Any
from urllib.parse import quote

import pandas as pd

from pneumonia.artifacts import Artifact, Facts, digest, digest_table
from pneumonia.config import as_dict
from pneumonia.model_notes import report_note
from pneumonia.notes import Note
from pneumonia.workspace import Scratch
from tasks.caching import Context, Plan, Stage

logger = logging.getLogger(__name__)

TEMPLATES = ("report.html", "page.html", "macros.html")
"""What the page is made from, in the key like code."""
STUDY_COLUMNS = ("image_id", "split", "target", "class", "view")
SAMPLES_PER_CLASS = 4
ERRORS_PER_KIND = 6
SERVED = "PNEUMONIA_REPORTS_URL"
"""Names the server of reports in the environment: it shows a run's report at `<url>/<run>/`."""


def plan(context: Context) -> Plan:
    """Read every artifact of the run; their names stand on the page, so they are in the key."""
    workspace = context.workspace
    split, shards = context.artifact("split"), context.artifact("shards")
    training = context.artifacts("training")
    cam, evaluation = context.artifacts("cam"), context.artifact("evaluation")
    studies = split.table("studies.parquet", STUDY_COLUMNS)
    images = shards.table("images.parquet", ["image_id", "pixel_digest", "pool", "row"])
    samples = choose_samples(studies).merge(images, on="image_id", validate="1:1")
    lineage = [
        lineage_row(name, workspace.get(reference)) for name, reference in context.upstream.items()
    ]
    configuration = as_dict(context.request.config)
    del configuration["runtime"]  # the machine's, no part of the recipe
    del configuration["shards"]["quiet_seconds"]  # when a file counts, not what comes of it
    configuration["training"]["weights"] = {  # a file by its digest, not by its path
        model: artifact.manifest.configuration["weights"] for model, artifact in training.items()
    }

    def write(scratch: Scratch) -> Facts:
        from pneumonia.pool import ImagePool
        from pneumonia.report import write_report
        from pneumonia.seeds import Trained, make_ensembles

        told, pool = evaluation.json("evaluation.json"), ImagePool(workspace.pool, images)
        every: dict[str, Trained] = {
            model: {seed: (made.table("predictions.parquet"), {}) for seed, made in seeds.items()}
            for model, seeds in context.seeds("predictions").items()
        }
        tables = {model: next(iter(seeds.values()))[0] for model, seeds in every.items()}
        ensembles = {name: table for name, (table, _) in make_ensembles(studies, every).items()}
        return write_report(
            scratch.output,
            run=context.request.run,
            evaluation=told,
            cams={
                model: (artifact.json("cam.json"), artifact.path) for model, artifact in cam.items()
            },
            histories={
                model: pd.read_csv(artifact.file("history.csv"))
                for model, artifact in training.items()
            },
            predictions=tables | ensembles,
            studies=studies,
            quarantine=shards.table("quarantine.parquet"),
            duplicates=split.table("duplicates.parquet"),
            samples=films_of(pool, samples),
            errors={
                model: films_of(
                    pool, choose_errors(studies, table, told["models"][model]["threshold"])
                )
                for model, table in tables.items()
            },
            split_digest=split.sha256("split.csv"),
            lineage=lineage,
            configuration=configuration,
        )

    inputs = {
        "page": digest_page(),
        "artifacts": digest(lineage),
        "samples": digest_table(samples, ["image_id", "pixel_digest"]),
    }
    return Plan(inputs, {"run": context.request.run, "configuration": configuration}, write)


def digest_page() -> str:
    """Digest of the templates that a report is written with."""
    return digest([(files("pneumonia") / name).read_text("utf-8") for name in TEMPLATES])


def choose_samples(studies: pd.DataFrame) -> pd.DataFrame:
    """A few images of each class, by a hash of image_id: not by how well they look."""
    kind = studies["class"].astype(object).where(studies["class"].notna(), studies["target"])
    lot = [hashlib.sha256(name.encode()).hexdigest() for name in studies["image_id"]]
    ordered = studies.assign(kind=kind.astype(str), lot=lot).sort_values(["kind", "lot"])
    return ordered.groupby("kind").head(SAMPLES_PER_CLASS).drop(columns=["kind", "lot"])


def choose_errors(
    studies: pd.DataFrame, predictions: pd.DataFrame, threshold: float
) -> pd.DataFrame:
    """The most confident errors on test: false positives by falling, misses by rising probability.

    Returns:
        rows of `studies` with `probability` and `outcome`.
    """
    test = studies[studies["split"] == "test"].merge(predictions[["image_id", "probability"]])
    called = test["probability"] >= threshold
    alarms = test[called & ~test["target"]].nlargest(ERRORS_PER_KIND, "probability")
    misses = test[~called & test["target"]].nsmallest(ERRORS_PER_KIND, "probability")
    kinds = {"false positive": alarms, "false negative": misses}
    return pd.concat([rows.assign(outcome=kind) for kind, rows in kinds.items()])


def films_of(pool: Any, rows: pd.DataFrame) -> tuple[Any, pd.DataFrame]:  # noqa: ANN401 (ImagePool)
    """The stored images of some rows, and the rows."""
    return pool.gather_ids(rows["image_id"].tolist()), rows


def describe(facts: Facts) -> str:
    """One half line for the console."""
    return f"report.html, {facts['bytes'] / 1e6:.1f} MB, {facts['pictures']} pictures"


def note(context: Context, _: Artifact) -> Note:
    """The answer of the run, and where its report is."""
    run = context.request.run
    place = f"runs/{run}/{REPORT.name}/report.html"
    return report_note(
        context.artifact("evaluation"), context.artifacts("cam"), place, page_address(run)
    )


def page_address(run: str) -> str:
    """Where the server of reports that the environment names shows a run; empty without one."""
    served = os.environ.get(SERVED, "")
    if served and not served.startswith(("http://", "https://")):
        told = "%s: expected the address of a server (http://...), got %r. No report is linked."
        logger.warning(told, SERVED, served)
        return ""
    return f"{served.rstrip('/')}/{quote(run)}/" if served else ""


def lineage_row(name: str, artifact: Artifact) -> dict[str, Any]:
    """What the page tells of an artifact."""
    manifest = artifact.manifest
    return {
        "stage": name,
        "key": manifest.key,
        "version": manifest.version,
        "seed": manifest.configuration.get("seed"),
        "made with": ", ".join(
            f"{library} {version}" for library, version in manifest.libraries.items()
        ),
    }


REPORT = Stage(
    name="report",
    version=1,
    plan=plan,
    describe=describe,
    needs=("labels", "shards", "split", "training", "predictions", "evaluation", "cam"),
    note=note,
)
