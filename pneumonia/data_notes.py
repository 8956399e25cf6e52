"""What `labels`, `shards` and `split` have to show of the data.

In: an artifact, and for the images the pool. Out: a note.
"""

import hashlib
import json
from collections.abc import Iterable
from datetime import datetime, timedelta
from pathlib import Path

import pandas as pd

from pneumonia.artifacts import RECORD, Artifact, Facts, read_manifest
from pneumonia.markdown import escaped, markdown_table
from pneumonia.notes import MAX_PICTURE_BYTES, Note, fact_table, page, section, share, shown
from pneumonia.tables import duplicate_table, percent

SHEET_IMAGES, SHEET_COLUMNS = 16, 8
ROWS_SHOWN = 20
"""Rows of a table of images; all of them stand in the artifact."""
GAP = timedelta(seconds=5)
"""Between two shards of one conversion at most."""
LEAST_SECONDS = 10
"""Of a conversion whose speed is told: records give the start of a shard to the second."""


def labels_note(labels: Artifact) -> Note:
    """Images, positives and boxes; classes; how many boxes a positive image has."""
    table = labels.table("labels.parquet", ["image_id", "target", "class"])
    boxes = labels.table("boxes.parquet", ["image_id"])
    facts = labels.manifest.facts
    positives, images = facts["positives"], facts["images"]
    counts = {
        "images": f"{images:,}",
        "positive (lung opacity)": f"{positives:,}",
        "prevalence": share(positives, images),
        "boxes": f"{facts['boxes']:,}",
        "boxes per positive image": f"{facts['boxes'] / positives:.2f}"
        if positives
        else "\N{EN DASH}",
    }
    odd = set(facts) - {"images", "positives", "boxes"}
    counts |= {name.replace("_", " "): f"{facts[name]:,}" for name in sorted(odd)}
    named = table["class"].astype(object).where(table["class"].notna(), "not stated")
    classes = [
        {
            "class": str(name),
            "images": f"{len(rows):,}",
            "share": share(len(rows), images),
            "positive": f"{int(rows['target'].sum()):,}",
        }
        for name, rows in table.groupby(named)
    ]
    per_image = boxes["image_id"].value_counts().value_counts().sort_index()
    several = [
        {"boxes": str(n), "positive images": f"{count:,}", "share": share(count, positives)}
        for n, count in per_image.items()
    ]
    return Note(
        page(
            "Labels",
            fact_table(counts),
            section("Classes", markdown_table(classes)),
            section("Boxes", markdown_table(several)),
        )
    )


def shards_note(shards: Artifact, pool: Path) -> Note:
    """Images and the speed of their conversion, what was refused and why, some of the images.

    Args:
        pool: the folder of pool shards, `WORKSPACE/pool`.
    """
    from pneumonia.pictures import sheet
    from pneumonia.pool import ImagePool

    images = shards.table("images.parquet", ["image_id", "pool", "row"])
    facts = shards.manifest.facts
    used = sorted(set(images["pool"]))
    counts = {
        "images": f"{facts['images']:,} of {facts['side']} x {facts['side']} pixels",
        "pool shards": f"{len(used):,}",
        "in quarantine": f"{facts['quarantined']:,}",
        "file name and Patient ID differ": f"{facts['patient_differs']:,}",
        "still being copied, left to the next run": f"{facts['unsettled']:,}",
        "last conversion": _last_conversion(pool, used),
    }
    chosen = _by_lot(images).head(SHEET_IMAGES)["image_id"].tolist()
    films = ImagePool(pool, images).gather_ids(chosen)
    names = ", ".join(map(escaped, chosen))
    return Note(
        page(
            "Images",
            fact_table(counts),
            section("Quarantine", _quarantine(shards.table("quarantine.parquet"))),
            section(
                "Samples, as stored",
                shown("the sheet of samples", sheet(films, SHEET_COLUMNS, MAX_PICTURE_BYTES)),
                f"Chosen by lot. Row after row: {names}.",
            ),
        )
    )


def split_note(split: Artifact) -> Note:
    """The sides with their people and prevalence, what was left out, leak and duplicates."""
    facts = split.manifest.facts
    by_person = facts["grouping"] == "person"
    sides = [
        {
            "side": side,
            **({"people": f"{counted['people']:,}"} if by_person else {}),
            "images": f"{counted['images']:,}",
            "share": share(counted["images"], facts["images"]),
            "positive": f"{counted['positives']:,}",
            "prevalence": share(counted["positives"], counted["images"]),
        }
        for side, counted in facts["sides"].items()
    ]
    told = (
        "Split by person: no person that the map names stands on two sides."
        if by_person
        else "**Split by image: a person may stand on two sides, and every figure may flatter.**"
    )
    counts = {
        "labels without a file": facts["labels_without_file"],
        "files without a label": facts["unlabelled_files"],
        "images without a person in the map": facts["unmapped_images"],
    }
    if facts["images_not_in_split_file"]:
        counts["images not in the split file"] = facts["images_not_in_split_file"]
    return Note(
        page(
            "Split",
            told,
            markdown_table(sides),
            _leak(facts["leak_if_split_by_image"], by_person=by_person),
            fact_table({name: f"{count:,}" for name, count in counts.items()}),
            section("Duplicates across sides", _duplicates(split)),
        )
    )


def _last_conversion(pool: Path, keys: Iterable[str]) -> str:
    """How many images were converted last and how fast, by the records of their shards."""
    spans = sorted((span for key in keys if (span := _span(pool / key)) is not None), reverse=True)
    if not spans:
        return "not recorded"
    begun, ended, images = spans[0]
    for start, end, count in spans[1:]:
        if end + GAP < begun:
            break
        begun, ended, images = start, max(end, ended), images + count
    seconds = (ended - begun).total_seconds()
    speed = f"{seconds:,.0f} s, {images / seconds:,.0f} a second"
    told = speed if seconds >= LEAST_SECONDS else f"less than {LEAST_SECONDS + 1} s"
    return f"{images:,} images in {told} ({begun:%Y-%m-%d %H:%M} UTC)"


def _span(shard: Path) -> tuple[datetime, datetime, int] | None:
    """When a shard was begun and ended, and its images; None where its record is not there."""
    file = shard / RECORD  # outside every digest: it may be missing
    if not file.is_file():
        return None
    record = json.loads(file.read_text("utf-8"))
    begun = datetime.fromisoformat(record["started"])
    images = int(read_manifest(shard).facts["images"])
    return begun, begun + timedelta(seconds=record["seconds"]), images


def _by_lot(images: pd.DataFrame) -> pd.DataFrame:
    """By a hash of image_id: not by how well they look."""
    lot = [hashlib.sha256(name.encode()).hexdigest() for name in images["image_id"]]
    return images.assign(lot=lot).sort_values("lot")


def _quarantine(quarantine: pd.DataFrame) -> str:
    """Refused files by reason, and the first of them."""
    from pneumonia.dicom import REASONS

    if quarantine.empty:
        return "No file was refused."
    reasons = [
        {"reason": str(reason), "files": f"{len(rows):,}", "that is": REASONS.get(str(reason), "")}
        for reason, rows in quarantine.groupby("reason")
    ]
    first = quarantine.head(ROWS_SHOWN)
    files = [
        {"image": str(row["image_id"]), "reason": str(row["reason"])}
        for row in first.to_dict("records")
    ]
    cut = (
        f"The first {len(first):,} of {len(quarantine):,}. " if len(quarantine) > len(first) else ""
    )
    told = f"{cut}All stand in `quarantine.parquet`, with details."
    return "\n\n".join([markdown_table(reasons), told, markdown_table(files)])


def _leak(leak: dict[str, float | None] | None, *, by_person: bool) -> str:
    """How many images of val and test have their person in train too, where that is known."""
    if leak is None:
        return (
            "" if by_person else "How large the leak is, is not known: there is no map of people."
        )
    would = "would have" if by_person else "have"
    case = "Split by image, " if by_person else ""
    told = [f"{percent(value)} of the {side} images" for side, value in leak.items()]
    return f"{case}{' and '.join(told)} {would} their person in train too."


def _duplicates(split: Artifact) -> str:
    """Pairs of one film on two sides under two names."""
    found: Facts = split.manifest.facts["duplicates"]
    pairs = split.table("duplicates.parquet")
    near = (
        "nearly equal ones were not looked for: the stored images are too small"
        if found["near"] is None
        else f"{found['near']:,} nearly equal"
    )
    rows = duplicate_table(pairs.head(ROWS_SHOWN).to_dict("records"))
    return "\n\n".join(
        filter(None, [f"Pairs: {found['exact']:,} equal; {near}.", markdown_table(rows)])
    )
