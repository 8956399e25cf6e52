"""The report: everything a run has found, as one HTML file that stands alone.

In: what the stages left, as tables and dictionaries. Out: `report.html`. Its first screen is the
answer; pictures are embedded, nothing is fetched, no script runs, and whatever comes from a file
is escaped. Figures on it are of test unless they say val.
"""

import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from pneumonia import pictures, shift, summary, tables
from pneumonia.artifacts import Facts
from pneumonia.page import render

logger = logging.getLogger(__name__)

REPORT = "report.html"
ANCHORS: tables.Table = [
    {"system": "MaCo, ViT-B/16 pretrained on 377k MIMIC-CXR pairs (another test set)",
     "AUROC": "0.936", "source": "Nat. Commun. 2024, table 1"},
    {"system": "MedKLIP, BioViL, GLoRIA (ResNet-50)", "AUROC": "0.893, 0.891, 0.886",
     "source": "same table"},
    {"system": "torchxrayvision DenseNet-121 at 224 px", "AUROC": "0.88",
     "source": "its BENCHMARKS.md"},
    {"system": "U-Net trained on the boxes (Hurt et al.)", "AUROC": "0.854",
     "source": "PMC7483166"},
]  # fmt: skip
"""Published figures for lung opacity against everything else on the challenge's images."""
DUPLICATES_SHOWN = 12
"""Pairs on the page; all of them stand in the split's `duplicates.parquet`."""


def write_report(
    output: Path,
    *,
    run: str,
    evaluation: Mapping[str, Any],
    cams: Mapping[str, tuple[Mapping[str, Any], Path]],
    histories: Mapping[str, pd.DataFrame],
    predictions: Mapping[str, pd.DataFrame],
    studies: pd.DataFrame,
    quarantine: pd.DataFrame,
    duplicates: pd.DataFrame,
    samples: pictures.Films,
    errors: Mapping[str, pictures.Films],
    split_digest: str,
    lineage: Sequence[Mapping[str, Any]],
    configuration: Mapping[str, Any],
    home: tuple[pd.DataFrame, Mapping[str, pd.DataFrame]] | None = None,
) -> Facts:
    """Write `report.html` into `output`.

    Args:
        run: its name, for the title.
        cams: per model the content of `cam.json` and the folder of its PNG files.
        histories: per model epoch, train_loss, val_loss, val_auroc, learning_rate.
        predictions: per model image_id, split, logit, probability.
        evaluation: `evaluation.json`; with `external` in it, the page is that of an external test.
        studies: image_id, split, target, class, view of every usable image; of an external test
            those of the other data set.
        quarantine: file, image_id, reason, detail of what could not be read.
        duplicates: as `duplicates.find_duplicates` gives them.
        samples: images and a row of `studies` for each.
        errors: per model the same of its most confident errors, with `probability` and `outcome`.
        split_digest: sha256 of the run's `split.csv`.
        lineage: a row per artifact: stage, key, version and what else is to be told.
        configuration: the recipe as plain values.
        home: of an external test, studies and predictions of the run that made the model.

    Returns:
        bytes written and pictures embedded.
    """
    scored = {model: cam for model, (cam, _) in cams.items()}
    test = pictures.probabilities(studies, predictions)
    curves = pictures.training_curves(histories)
    if test:
        curves |= pictures.test_curves(evaluation, test)
    if home is not None:
        curves |= pictures.shift_curve(pictures.probabilities(*home), test)
    page = render(
        REPORT,
        run=run,
        evaluation=evaluation,
        external=evaluation.get("external"),
        data=evaluation["data"],
        unit=tables.unit(evaluation),
        has_intervals=tables.has_intervals(evaluation),
        headline=summary.headline(evaluation),
        trust=summary.reasons_to_trust(evaluation),
        caution=summary.reasons_for_caution(evaluation, scored),
        point_names=tables.POINT_NAMES,
        interval_decides=tables.INTERVAL_DECIDES,
        tables=_tables(evaluation, scored, histories),
        views=_prevalence_by_view(studies),
        quarantine=_quarantine(quarantine),
        duplicates=tables.duplicate_table(duplicates.head(DUPLICATES_SHOWN).to_dict("records")),
        anchors=_anchors(evaluation),
        lineage=[{name: _plain(cell) for name, cell in row.items()} for row in lineage],
        configuration=json.dumps(configuration, indent=2),
        side=samples[0].shape[-1],
        cams=scored,
        curves=curves,
        histograms=pictures.histograms(test),
        overview=pictures.overview(evaluation),
        subgroups={
            model: pictures.subgroups(model, sides)
            for model, sides in evaluation["models"].items()
            if sides["subgroups"]
        },
        samples=pictures.samples(*samples),
        errors={model: pictures.errors(*films) for model, films in errors.items()},
        split_digest=split_digest,
        panels={
            model: pictures.panels(model, cam, folder) for model, (cam, folder) in cams.items()
        },
    )
    (output / REPORT).write_text(page, "utf-8")
    size = (output / REPORT).stat().st_size
    logger.info("Wrote %s (%.1f MB).", REPORT, size / 1e6)
    return {"bytes": size, "pictures": page.count('src="data:')}


def _tables(
    evaluation: Mapping[str, Any],
    cams: Mapping[str, Mapping[str, Any]],
    histories: Mapping[str, pd.DataFrame],
) -> dict[str, Any]:
    return {
        "answer": tables.answer_table(evaluation),
        "data": tables.data_table(evaluation),
        "training": _training_table(evaluation, histories),
        "operating": tables.operating_table(evaluation),
        "prevalence": tables.prevalence_table(evaluation),
        "calibration": tables.calibration_table(evaluation),
        "shift": shift.shift_table(evaluation) if "external" in evaluation else [],
        "comparison": tables.comparison_table(evaluation),
        "seeds": _seed_table(evaluation),
        "subgroups": tables.subgroup_table(evaluation),
        "cam": tables.cam_table(cams),
        "sanity": tables.sanity_table(cams),
    }


def _training_table(
    evaluation: Mapping[str, Any], histories: Mapping[str, pd.DataFrame]
) -> tables.Table:
    rows = []
    for model, history in histories.items():
        best = history.iloc[int(history["val_loss"].argmin())]
        calibration = evaluation["models"][model]["calibration"]
        rows.append(
            {
                "model": model,
                "epochs": str(len(history)),
                "best epoch": str(int(best["epoch"])),
                "val loss there": f"{best['val_loss']:.4f}",
                "val AUROC there": f"{best['val_auroc']:.3f}",
                "calibration": f"a {calibration['a']:.3f}, b {calibration['b']:+.3f}",
            }
        )
    return rows


def _seed_table(evaluation: Mapping[str, Any]) -> tables.Table:
    """Of models that were trained with several seeds, the spread of their figures on test."""
    named = tables.FIGURE_NAMES | {"recall": "sensitivity", "specificity": "specificity"}
    return [
        {
            "model": model,
            "seeds": ", ".join(map(str, block["seeds"]["seeds"])),
            **{name: _spread(block["seeds"]["test"][key]) for key, name in named.items()},
        }
        for model, block in evaluation["models"].items()
        if "seeds" in block
    ]


def _spread(told: Mapping[str, Any]) -> str:
    """A figure's mean and standard deviation, and the least and largest of the seeds."""
    if told["mean"] is None:
        return f"undefined: {told['reason']}"
    ends = f"{min(told['values']):.3f} to {max(told['values']):.3f}"
    return f"{told['mean']:.3f} \N{PLUS-MINUS SIGN} {told['standard_deviation']:.3f} ({ends})"


def _prevalence_by_view(studies: pd.DataFrame) -> tables.Table:
    views = studies["view"].astype(object).where(studies["view"].notna(), "not stated")
    return [
        {
            "view": str(view),
            "images": f"{len(rows):,}",
            "positive": f"{int(rows['target'].sum()):,}",
            "prevalence": tables.percent(float(rows["target"].mean())),
        }
        for view, rows in studies.groupby(views)
    ]


def _quarantine(quarantine: pd.DataFrame) -> tables.Table:
    return [
        {
            "reason": str(reason),
            "files": f"{len(rows):,}",
            "first": str(rows["file"].iloc[0]),
            "detail": str(rows["detail"].iloc[0]),
        }
        for reason, rows in quarantine.groupby("reason")
    ]


def _anchors(evaluation: Mapping[str, Any]) -> tables.Table:
    """Published figures are of the challenge's images: beside others they mislead."""
    others = "external" in evaluation or evaluation["data"].get("simulated")
    return [] if others else ANCHORS


def _plain(cell: object) -> str:
    return "" if cell is None else str(cell)
