"""Each stage's note tells what stands in its artifact."""

import base64
import json
import re
import shutil
import struct
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

from pneumonia import notes, tables
from pneumonia.artifacts import Artifact, list_files, read_manifest, write_table
from pneumonia.data_notes import labels_note, shards_note, split_note
from pneumonia.model_notes import (
    cam_note,
    evaluation_note,
    predictions_note,
    report_note,
    training_note,
)
from pneumonia.pictures import SHEET_TILE, Picture, sheet


def artifact_of(finished, name):
    folder = finished.linked(name)
    return Artifact(folder, read_manifest(folder))


def rows_of(markdown, heading):
    """Cells of the rows of the table that has a heading of that name."""
    lines = markdown.splitlines()
    start = next(
        i
        for i, line in enumerate(lines)
        if line.startswith(f"| {heading} |") and lines[i + 1].startswith("| ---")
    )
    rows = []
    for line in lines[start + 2 :]:
        if not line.startswith("|"):
            break
        rows.append([cell.strip() for cell in line.strip("|").split(" | ")])
    return rows


def pictures_of(markdown):
    return [
        base64.b64decode(data)
        for data in re.findall(r"\]\(data:image/png;base64,([A-Za-z0-9+/=]+)\)", markdown)
    ]


def size_of(png):
    assert png.startswith(b"\x89PNG\r\n\x1a\n")
    return struct.unpack(">II", png[16:24])


def test_labels_are_counted(finished):
    labels = artifact_of(finished, "labels")
    table, boxes = labels.table("labels.parquet"), labels.table("boxes.parquet")
    positives = int(table["target"].sum())
    told = labels_note(labels).markdown
    facts = dict(rows_of(told, "fact"))
    assert facts["images"] == "160"
    assert facts["positive (lung opacity)"] == str(positives)
    assert facts["prevalence"] == f"{100 * positives / 160:.1f} %"
    assert facts["boxes per positive image"] == f"{len(boxes) / positives:.2f}"
    classes = {row[0]: int(row[1]) for row in rows_of(told, "class")}
    assert classes == table["class"].value_counts().to_dict()
    several = {int(row[0]): int(row[1]) for row in rows_of(told, "boxes")}
    assert sum(several.values()) == positives
    assert sum(n * images for n, images in several.items()) == len(boxes)


def test_images_are_told_with_a_sheet_of_samples(finished):
    shards = artifact_of(finished, "shards")
    told = shards_note(shards, finished.workspace / "pool").markdown
    facts = dict(rows_of(told, "fact"))
    assert facts["images"] == "160 of 32 x 32 pixels"
    assert re.match(r"160 images in .+ UTC\)", facts["last conversion"])
    assert "No file was refused." in told
    (picture,) = pictures_of(told)
    assert size_of(picture) == (8 * 34, 2 * 34)
    named = re.search(r"Row after row: (.+)\.", told)[1].split(", ")
    assert len(set(named)) == 16
    assert set(named) <= set(shards.table("images.parquet")["image_id"])


def test_refused_files_are_told_by_image_and_reason_alone(finished, tmp_path):
    copy = finished.copy(tmp_path)
    shards = artifact_of(copy, "shards")
    refused = pd.DataFrame(
        {
            "image_id": ["a|b", "`c`", "<script>alert(1)</script>"],
            "file": ["a|b.dcm", "`c`.dcm", "x.dcm"],
            "digest": ["1", "2", "3"],
            "reason": ["depth", "depth", "not_dicom"],
            "detail": ["(0010,0010) Doe^Jane"] * 3,
        }
    )
    write_table(refused, shards.path / "quarantine.parquet")
    shards.manifest.files.update(list_files(shards.path))
    told = shards_note(shards, copy.workspace / "pool").markdown
    reasons = rows_of(told, "reason")
    assert [row[:2] for row in reasons] == [["depth", "2"], ["not_dicom", "1"]]
    assert reasons[0][2] == "not 8 to 16 bits per pixel"
    assert rows_of(told, "image") == [
        ["a\\|b", "depth"],
        ["\\`c\\`", "depth"],
        ["&lt;script&gt;alert(1)&lt;/script&gt;", "not_dicom"],
    ]
    assert "<script" not in told
    assert "Doe" not in told


def test_without_a_record_the_speed_is_not_known(finished, tmp_path):
    copy = finished.copy(tmp_path)
    for record in (copy.workspace / "pool").glob("*/record.json"):
        record.unlink()
    told = shards_note(artifact_of(copy, "shards"), copy.workspace / "pool").markdown
    assert dict(rows_of(told, "fact"))["last conversion"] == "not recorded"


def test_the_speed_is_that_of_the_shards_converted_last(finished, tmp_path):
    copy = finished.copy(tmp_path)
    keys = sorted(path.name for path in (copy.workspace / "pool").iterdir())
    counts = [int(read_manifest(copy.workspace / "pool" / key).facts["images"]) for key in keys]
    begun = ["2026-01-01T10:00:00+00:00", "2026-02-01T10:00:00+00:00", "2026-02-01T10:00:04+00:00"]
    for key, start in zip(keys, begun, strict=True):
        record = copy.workspace / "pool" / key / "record.json"
        told = json.loads(record.read_text("utf-8")) | {"started": start, "seconds": 8.0}
        record.write_text(json.dumps(told), "utf-8")
    note = shards_note(artifact_of(copy, "shards"), copy.workspace / "pool").markdown
    last = counts[1] + counts[2]
    assert dict(rows_of(note, "fact"))["last conversion"] == (
        f"{last} images in 12 s, {last / 12:.0f} a second (2026-02-01 10:00 UTC)"
    )


def test_the_split_tells_sides_and_leak(finished):
    split = artifact_of(finished, "split")
    studies = split.table("studies.parquet")
    told = split_note(split).markdown
    rows = {row[0]: row for row in rows_of(told, "side")}
    for side, images in studies.groupby("split"):
        assert rows[side][2] == str(len(images))
        assert rows[side][4] == str(int(images["target"].sum()))
        assert rows[side][5] == f"{100 * images['target'].mean():.1f} %"
    assert "Split by person: no person" in told
    leak = split.manifest.facts["leak_if_split_by_image"]["val"]
    assert f"{100 * leak:.1f} % of the val images" in told


def test_a_split_by_image_is_told_in_bold(finished, tmp_path):
    copy = finished.copy(tmp_path)
    copy.run({"shards.image_size": 32}, by_image=True, run="images")
    folder = copy.linked("split", run="images")
    told = split_note(Artifact(folder, read_manifest(folder))).markdown
    assert "**Split by image: a person may stand on two sides" in told
    assert "people" not in rows_of(told, "side")[0]


def test_a_training_tells_its_epochs_and_marks_the_kept_one(finished):
    training = artifact_of(finished, "training-custom_cnn")
    history = pd.read_csv(training.path / "history.csv")
    told = training_note(training, "custom_cnn-seed1").markdown
    (row,) = rows_of(told, "epoch")
    assert row[:3] == ["1", f"{history['train_loss'][0]:.4f}", f"{history['val_loss'][0]:.4f}"]
    assert row[-1] == "kept"
    assert told.startswith("# Training of custom_cnn-seed1\n")
    (picture,) = pictures_of(told)
    assert size_of(picture)[0] > 300
    assert len(picture) <= notes.MAX_PICTURE_BYTES


def test_predictions_tell_calibration_and_thresholds(finished):
    predictions = artifact_of(finished, "predictions-custom_cnn")
    decisions = predictions.json("operating_points.json")
    table = predictions.table("predictions.parquet")
    told = predictions_note(predictions, "custom_cnn").markdown
    assert f"a = {decisions['calibration']['a']:.4f}" in told
    rows = rows_of(told, "operating point")
    youden = decisions["operating_points"]["youden"]["threshold"]
    assert [row[0] for row in rows] == ["Youden", "sensitivity 0.90 on val", "probability 0.5"]
    assert rows[0][1] == f"{youden:.4f}"
    for name, point in decisions["operating_points"].items():
        assert f"{tables.POINT_NAMES[name]}: {point['rule']}" in told.replace("\\", "")
    for column, side in ((2, "val"), (3, "test")):
        called = (table.loc[table["split"] == side, "probability"] >= youden).mean()
        assert rows[0][column] == f"{100 * called:.1f} %"


def test_the_evaluation_tells_the_answer_with_a_figure(finished):
    evaluation = artifact_of(finished, "evaluation")
    figure = evaluation.json("evaluation.json")["models"]["custom_cnn"]["test"]["auroc"]
    told = evaluation_note(evaluation).markdown
    assert f"{figure['value']:.3f} ({figure['low']:.3f} to {figure['high']:.3f})" in told
    assert len(pictures_of(told)) == 1
    points = tables.operating_table(evaluation.json("evaluation.json"))
    heading, *rows = rows_of(told, "operating point")
    assert heading == ["threshold", *(row["threshold"] for row in points)]
    brief = [row["sensitivity"].partition(":")[0] for row in points]
    told_of = next(row for row in rows if row[0] == "sensitivity")
    assert all(cell.startswith(figure) for cell, figure in zip(told_of[1:], brief, strict=True))
    assert "no interval: " not in "".join(told_of)


def test_maps_stand_beside_the_constant_map(finished):
    cam = artifact_of(finished, "cam-custom_cnn")
    scores = cam.json("cam.json")
    note = cam_note(cam)
    assert note.markdown.startswith("# Class activation maps of custom_cnn\n")
    measured = {row[0]: row for row in rows_of(note.markdown, "map")}
    assert measured["IoU"][1] == tables.tell(scores["iou"], why=False)
    assert measured["IoU"][2] == tables.tell(scores["constant_map"]["iou"], why=False)
    kinds = {panel["outcome"] for panel in scores["panels"]}
    assert len(pictures_of(note.markdown)) == len(kinds)
    drawn = {path.read_bytes() for path in cam.path.glob("*.png")}
    assert set(pictures_of(note.markdown)) <= drawn
    assert note.pictures["first"].startswith("data:image/png;base64,")


@pytest.mark.parametrize("address", ["", "http://127.0.0.1:4280/main/"])
def test_the_report_is_linked_where_it_is_served(finished, address):
    evaluation = artifact_of(finished, "evaluation")
    cams = {"custom_cnn": artifact_of(finished, "cam-custom_cnn")}
    note = report_note(evaluation, cams, "runs/main/report/report.html", address)
    assert "`runs/main/report/report.html` in the workspace" in note.markdown
    assert note.links == ({"page": address} if address else {})
    assert (f"(<{address}>)" in note.markdown) is bool(address)
    assert [row[""] for row in note.tables["answer"]][:1] == ["custom_cnn"]


def test_a_picture_too_large_is_left_out_and_told(caplog):
    data = base64.b64encode(bytes(notes.MAX_PICTURE_BYTES + 1)).decode()
    with caplog.at_level("WARNING", logger="pneumonia.notes"):
        told = notes.shown("the sheet", Picture(f"data:image/png;base64,{data}", "x"))
    assert told == "A picture is left out here: it is too large for Prefect's database."
    assert caplog.messages == [
        "the sheet is left out of Prefect's artifacts: 200001 bytes, at most 200000. "
        "The workspace has it."
    ]


def test_a_picture_just_small_enough_is_shown(caplog):
    data = base64.b64encode(bytes(notes.MAX_PICTURE_BYTES)).decode()
    source = f"data:image/png;base64,{data}"
    assert notes.shown("the sheet", Picture(source, "x")) == f"![x]({source})"
    assert caplog.messages == []


def test_a_sheet_is_reduced_until_it_is_small_enough():
    noise = np.random.default_rng(0).integers(0, 256, (5, 256, 256), np.uint8)
    large = sheet(noise, 4, 10**6)
    assert size_of(base64.b64decode(large.source.partition(",")[2])) == (
        4 * (SHEET_TILE + 2),
        2 * (SHEET_TILE + 2),
    )
    small = sheet(noise, 4, 20_000)
    assert small.size <= 20_000 < large.size


def test_importing_the_notes_imports_neither_torch_nor_matplotlib():
    told = subprocess.run(
        [
            sys.executable, "-c",
            "import sys, pneumonia.data_notes, pneumonia.model_notes, flows.pipeline;"
            "print(sorted({'torch', 'matplotlib'} & set(sys.modules)))",
        ],
        capture_output=True, text=True, check=True, timeout=120,
    )  # fmt: skip
    assert told.stdout == "[]\n"


def test_a_note_of_a_run_that_is_gone_says_so(finished, tmp_path):
    copy = finished.copy(tmp_path)
    shutil.rmtree(copy.workspace / "pool")
    with pytest.raises(Exception, match=r"pool/.* Run again to make"):
        shards_note(artifact_of(copy, "shards"), copy.workspace / "pool")
