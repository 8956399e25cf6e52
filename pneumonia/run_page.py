"""The comparison of runs as one HTML file that stands alone, in the report's style."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pneumonia import pictures, run_tables
from pneumonia.page import render
from pneumonia.run_comparison import common_scores, label
from pneumonia.runs import Run
from pneumonia.tables import INTERVAL_DECIDES


def write_comparison(file: Path, comparison: Mapping[str, Any], runs: Sequence[Run]) -> None:
    """Write the page.

    Args:
        file: to write; its folder exists.
        comparison: what `compare_runs` says of `runs`.
        runs: the reference first.
    """
    pairs = [
        {
            "run": run.name,
            "headline": run_tables.pair_headline(comparison, pair),
            "changes": run_tables.change_table(pair),
            "common": run_tables.common_sentences(comparison, pair),
            "differences": run_tables.difference_table(comparison, pair),
            "curves": _curves(runs[0], run, pair),
        }
        for run, pair in zip(runs[1:], comparison["pairs"], strict=True)
    ]
    page = render(
        "comparison.html",
        reference=comparison["reference"],
        interval_decides=INTERVAL_DECIDES,
        simulated=run_tables.simulated_badge(comparison),
        runs=run_tables.run_table(comparison),
        points=run_tables.point_table(comparison),
        cautions=run_tables.cautions(comparison),
        pairs=pairs,
    )
    file.write_text(page, "utf-8")


def _curves(reference: Run, run: Run, pair: Mapping[str, Any]) -> dict[str, pictures.Picture]:
    """Curves of both runs on their common test images; none where a class is missing there."""
    scores = common_scores(reference, run)
    blocks = {
        label(name, model): {"test": block}
        for model, compared in pair["models"].items()
        for name, block in compared["blocks"].items()
    }
    return pictures.test_curves({"models": blocks}, scores) if scores else {}
