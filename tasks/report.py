"""The `report` stage: everything a run has found, on one page, and the same in Prefect's UI."""

import base64
import hashlib
import logging
from importlib.resources import files
from typing import Any

import pandas as pd
from prefect.artifacts import (
    create_image_artifact,
    create_markdown_artifact,
    create_table_artifact,
)

from pneumonia.artifacts import Artifact, Facts, Reference, digest, digest_table
from pneumonia.config import as_dict
from pneumonia.workspace import Scratch, Workspace
from tasks.caching import Context, Plan, Request, Stage

logger = logging.getLogger(__name__)

TEMPLATES = ("report.html", "page.html", "macros.html")
"""What the page is made from, in the key like code."""
STUDY_COLUMNS = ("image_id", "split", "target", "class", "view")
SAMPLES_PER_CLASS = 4
ERRORS_PER_KIND = 6
MAX_PICTURE_BYTES = 200_000
"""Of one picture in Prefect's database."""


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


def publish(request: Request, references: dict[str, Reference], *, pictures: bool) -> None:
    """Show the answer, the figures and some maps as artifacts of the Prefect run.

    Args:
        pictures: the maps too, which a run that changed nothing need not store once more.
    """
    from pneumonia.summary import summary_markdown
    from pneumonia.tables import answer_table, operating_table

    workspace = Workspace(request.workspace)
    evaluation = workspace.get(references["evaluation"]).json("evaluation.json")
    page = f"runs/{request.run}/{REPORT.name}/report.html"
    cams = {
        model: workspace.get(references[f"cam-{model}"]).json("cam.json")
        for model in request.models
    }
    told = f"{summary_markdown(evaluation, cams)}\n\nThe whole report: `{page}` in the workspace.\n"
    key = f"report-{request.run}".lower().replace("_", "-").replace(".", "-")
    create_markdown_artifact(told, key=key, description="What the run found")
    create_table_artifact(answer_table(evaluation), key=f"{key}-answer", description="On test")
    create_table_artifact(
        operating_table(evaluation), key=f"{key}-operating-points", description="On test"
    )
    for model in request.models if pictures else ():
        maps = _maps(workspace.get(references[f"cam-{model}"]))
        shown = [f"![{outcome}]({picture})" for outcome, picture in maps]
        of_model = f"{key}-cam-{model.replace('_', '-')}"
        create_markdown_artifact("\n\n".join([f"# Maps of {model}", *shown]), key=of_model)
        for outcome, picture in maps[:1]:
            create_image_artifact(picture, key=f"{of_model}-first", description=outcome)


def _maps(cam: Artifact) -> list[tuple[str, str]]:
    """Outcome and picture, as a data URI, of the first maps drawn."""
    maps = []
    for panel in cam.json("cam.json")["panels"][:4]:
        picture = (cam.path / panel["file"]).read_bytes()
        if len(picture) > MAX_PICTURE_BYTES:
            told = (
                "%s is left out of Prefect's artifacts: %d bytes, at most %d. It is in the report."
            )
            logger.warning(told, panel["file"], len(picture), MAX_PICTURE_BYTES)
            continue
        data = base64.b64encode(picture).decode()
        maps.append((panel["outcome"], f"data:image/png;base64,{data}"))
    return maps


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
)
