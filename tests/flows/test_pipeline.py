"""What a change makes run again, and what it leaves alone."""

import base64
import json
import os
import shutil
from pathlib import Path

import pandas as pd
import pytest
from prefect.client.orchestration import get_client

from flows.comparison import read_run
from pneumonia.errors import ConfigError, PneumoniaError
from pneumonia.notes import MAX_PICTURE_BYTES
from pneumonia.simulate import simulate

ALL = {
    "labels", "shards", "split", "training-custom_cnn", "predictions-custom_cnn", "evaluation",
    "cam-custom_cnn", "report",
}  # fmt: skip


def ran(told):
    return {name for name, (state, _) in told.items() if state == "ran"}


def snapshot(folder):
    """Every file and link of a folder with what would change if it were written."""
    return {
        path: (path.lstat().st_mtime_ns, path.lstat().st_ino, path.lstat().st_size)
        for path in folder.rglob("*")
    }


def test_first_run_makes_every_stage(finished):
    assert ran(finished.first) == ALL | {"pool"}
    assert {told.reason for name, told in finished.first.items() if name != "pool"} == {"first run"}


@pytest.mark.usefixtures("finished")
def test_what_was_found_is_shown_as_artifacts_of_the_prefect_run():
    with get_client(sync_client=True) as client:
        told = {artifact.key: artifact for artifact in client.read_artifacts(limit=200)}
    answer = told["report-main"]
    assert answer.type == "markdown"
    assert "AUROC of lung opacity" in answer.data
    rows = json.loads(told["report-main-answer"].data)
    assert [row[""] for row in rows] == ["custom_cnn", "metadata only", "always negative"]
    assert told["report-main-operating-points"].type == "table"
    picture = told["cam-main-custom-cnn-first"]
    assert picture.type == "image"
    content = base64.b64decode(picture.data.removeprefix("data:image/png;base64,"))
    assert content[:8] == b"\x89PNG\r\n\x1a\n"
    assert len(content) <= MAX_PICTURE_BYTES


def test_second_run_is_cached_and_rewrites_no_file(finished):
    before = snapshot(finished.workspace)
    told = finished.run()
    assert set(told) == ALL
    assert ran(told) == set()
    assert snapshot(finished.workspace) == before


def test_touching_every_file_runs_nothing(finished, tmp_path):
    copy = finished.copy(tmp_path)
    copy.run()
    for path in copy.raw.rglob("*"):
        os.utime(path, (1_700_000_000, 1_700_000_000))
    assert ran(copy.run()) == set()


def test_learning_rate_runs_training_and_what_follows(finished, tmp_path):
    copy = finished.copy(tmp_path)
    told = copy.run({"training.learning_rate": 0.0005})
    assert ran(told) == {
        "training-custom_cnn", "predictions-custom_cnn", "evaluation", "cam-custom_cnn", "report",
    }  # fmt: skip
    assert told["training-custom_cnn"].reason == "learning_rate 0.001 -> 0.0005"


def test_further_seeds_train_beside_the_first(finished, tmp_path):
    copy = finished.copy(tmp_path)
    several = {"training.seeds": [0, 1, 2], "runtime.tensorboard": str(tmp_path / "boards")}
    told = copy.run(several)
    assert ran(told) == {
        "training-custom_cnn-seed1", "training-custom_cnn-seed2",
        "predictions-custom_cnn-seed1", "predictions-custom_cnn-seed2",
        "evaluation", "cam-custom_cnn", "report",
    }  # fmt: skip
    assert told["training-custom_cnn"].state == "cached"
    boards = {path.parent.name[:-9] for path in tmp_path.glob("boards/main/*/events.*")}
    assert boards == {"custom_cnn-seed1", "custom_cnn-seed2"}
    used = copy.workspace / "runs/main"
    evaluation = json.loads((used / "evaluation/evaluation.json").read_text("utf-8"))
    assert list(evaluation["models"]) == ["custom_cnn", "custom_cnn_ensemble"]
    spread = evaluation["models"]["custom_cnn"]["seeds"]["test"]["auroc"]
    assert len(set(spread["values"])) == 3
    maps = json.loads((used / "cam-custom_cnn/cam.json").read_text("utf-8"))
    assert -1 < maps["repeatability"]["value"] < 1
    page = (used / "report/report.html").read_text("utf-8")
    assert "Over seeds" in page
    assert "Repeatability: " in page
    assert read_run(copy.workspace, "main").predictions.keys() == {"custom_cnn"}
    assert ran(copy.run(several)) == set()
    assert ran(copy.run({"training.seeds": [0, 1]})) == {"evaluation", "cam-custom_cnn", "report"}
    assert ran(copy.run()) == set()


def test_a_changed_box_runs_no_training(finished, tmp_path):
    copy = finished.copy(tmp_path)
    file = copy.raw / "stage_2_train_labels.csv"
    table = pd.read_csv(file)
    table.loc[table["Target"] == 1, "width"] -= 1
    table.to_csv(file, index=False)
    told = copy.run()
    assert ran(told) == {"labels", "split", "cam-custom_cnn", "report"}
    assert told["cam-custom_cnn"].reason == "boxes changed"


def test_a_label_file_written_anew_with_equal_content_stops_at_labels(finished, tmp_path):
    copy = finished.copy(tmp_path)
    file = copy.raw / "stage_2_train_labels.csv"
    table = pd.read_csv(file)
    table.iloc[::-1].to_csv(file, index=False)
    told = copy.run()
    assert "labels" in ran(told)
    assert "training-custom_cnn" not in ran(told)
    assert "evaluation" not in ran(told)


def test_a_deleted_pool_shard_is_made_again_and_nothing_after_it(finished, tmp_path):
    copy = finished.copy(tmp_path)
    shards = sorted((copy.workspace / "pool").iterdir())
    pixels = (shards[1] / "images.npy").read_bytes()
    shutil.rmtree(shards[1])
    assert ran(copy.run()) == {"pool"}
    assert (shards[1] / "images.npy").read_bytes() == pixels


def test_two_deleted_pool_shards_leave_everything_after_shards_alone(finished, tmp_path):
    copy = finished.copy(tmp_path)
    for shard in sorted((copy.workspace / "pool").iterdir())[::2]:
        shutil.rmtree(shard)
    assert ran(copy.run()) <= {"pool", "shards"}
    assert ran(copy.run()) == set()


def test_refresh_makes_one_stage_anew(finished, tmp_path):
    copy = finished.copy(tmp_path)
    told = copy.run(refresh=frozenset({"cam"}))
    assert ran(told) == {"cam-custom_cnn"}
    assert told["cam-custom_cnn"].reason == "asked for by --refresh"


def test_refresh_of_shards_converts_again_to_the_same_images(finished, tmp_path):
    copy = finished.copy(tmp_path)
    told = copy.run(refresh=frozenset({"shards"}))
    assert ran(told) == {"pool", "shards"}


def test_new_files_are_converted_alone(finished, tmp_path):
    copy = finished.copy(tmp_path)
    before = snapshot(copy.workspace / "pool")
    simulate(tmp_path / "more", 3, 9)
    for file in (tmp_path / "more" / "stage_2_train_images").iterdir():
        shutil.copy(file, copy.raw / "stage_2_train_images")
    told = copy.run()
    assert {"pool", "shards"} <= ran(told)
    assert "training-custom_cnn" not in ran(told)  # they have no label
    after = snapshot(copy.workspace / "pool")
    assert {path: after[path] for path in before if path.is_file()} == {
        path: stamp for path, stamp in before.items() if path.is_file()
    }


def test_another_run_leaves_the_links_of_main_alone(finished, tmp_path):
    copy = finished.copy(tmp_path)
    before = snapshot(copy.workspace / "runs" / "main")
    copy.run({"cam.n_images": 8}, run="experiment")
    assert snapshot(copy.workspace / "runs" / "main") == before
    assert copy.linked("cam-custom_cnn", "experiment") != copy.linked("cam-custom_cnn")
    assert copy.linked("training-custom_cnn", "experiment") == copy.linked("training-custom_cnn")


def test_altered_bytes_are_made_again_when_verified(finished, tmp_path):
    copy = finished.copy(tmp_path)
    shard = sorted((copy.workspace / "pool").iterdir())[0] / "images.npy"
    whole = shard.read_bytes()
    shard.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    assert ran(copy.run()) == set()
    assert ran(copy.run(verify=True)) == {"pool"}
    assert shard.read_bytes() == whole


def test_until_runs_what_the_stage_needs_and_no_more(finished, tmp_path):
    copy = finished.copy(tmp_path)
    shutil.rmtree(copy.workspace)
    assert set(copy.run(until="split")) == {"labels", "pool", "shards", "split"}


def test_until_labels_needs_no_image(finished, tmp_path):
    copy = finished.copy(tmp_path)
    shutil.rmtree(copy.raw / "stage_2_train_images")
    assert set(copy.run(until="labels")) == {"labels"}


def test_until_shards_needs_no_label(finished, tmp_path):
    copy = finished.copy(tmp_path)
    (copy.raw / "stage_2_train_labels.csv").unlink()
    assert set(copy.run(until="shards")) == {"shards"}


def test_retrain_after_keeps_the_model_while_few_rows_change(finished, tmp_path):
    copy = finished.copy(tmp_path)
    studies = pd.read_parquet(copy.linked("split") / "studies.parquet")
    gone = studies.loc[studies["split"] == "train", "image_id"].iloc[0]
    (copy.raw / "stage_2_train_images" / f"{gone}.dcm").unlink()
    told = copy.run({"training.retrain_after": 0.1})
    assert "training-custom_cnn" not in ran(told)
    lenient = {"training.retrain_after": 0.1, "training.seeds": [0, 1]}
    both = {"training-custom_cnn", "training-custom_cnn-seed1"}
    assert both <= ran(copy.run(lenient))  # else they would have learned from other images
    assert not both & ran(copy.run(lenient))
    assert "training-custom_cnn" not in ran(copy.run({"training.retrain_after": 0.0}))


def test_a_film_that_stands_on_two_sides_is_listed(finished, tmp_path):
    copy = finished.copy(tmp_path)
    studies = pd.read_parquet(copy.linked("split") / "studies.parquet")
    names = {side: rows["image_id"].iloc[0] for side, rows in studies.groupby("split")}
    folder = copy.raw / "stage_2_train_images"
    shutil.copy(folder / f"{names['train']}.dcm", folder / f"{names['test']}.dcm")
    copy.run(until="split")
    found = pd.read_parquet(copy.linked("split") / "duplicates.parquet")
    assert found[["image_id", "other_id", "kind"]].to_numpy().tolist() == [
        [names["test"], names["train"], "exact"]
    ]
    facts = json.loads((copy.linked("split") / "split.json").read_text("utf-8"))
    assert facts["duplicates"] == {"exact": 1, "near": None, "images": {"val": 0, "test": 1}}


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ({"models": ("resnet19",)}, "--models: expected different ones of custom_cnn, resnet18"),
        ({"models": ()}, "--models: expected"),
        ({"until": "everything"}, "--until: expected one of labels, shards"),
        ({"refresh": frozenset({"cams"})}, "--refresh: expected one of labels, shards"),
        ({"refresh": frozenset({"cam"}), "until": "split"}, "--refresh: expected a stage up to"),
        ({"run": "../main"}, "expected a name of letters"),
        ({"persons": "nowhere.csv"}, "--persons: expected a file, got nowhere.csv"),
        ({"persons": Path(__file__)}, r"test_pipeline\.py: row 1: expected the column"),
        ({"split_file": Path(__file__)}, r"test_pipeline\.py: row 1: expected the columns"),
    ],
)
def test_a_request_that_cannot_end_well_is_refused_before_anything_runs(finished, asked, told):
    with pytest.raises(PneumoniaError, match=told):
        finished.run(**asked)


def test_refresh_while_a_model_is_kept_publishes_no_other_rows_under_its_key(finished, tmp_path):
    copy = finished.copy(tmp_path)
    studies = pd.read_parquet(copy.linked("split") / "studies.parquet")
    gone = studies.loc[studies["split"] == "train", "image_id"].iloc[0]
    kept = copy.linked("training-custom_cnn")
    (copy.raw / "stage_2_train_images" / f"{gone}.dcm").unlink()
    asked = {"refresh": frozenset({"training"}), "until": "training"}
    assert "training-custom_cnn" in ran(copy.run({"training.retrain_after": 0.5}, **asked))
    assert copy.linked("training-custom_cnn") != kept


def test_dask_converts_to_the_same_bytes_as_threads(finished, tmp_path):
    copy = finished.copy(tmp_path)
    before = {p: (p / "images.npy").read_bytes() for p in (copy.workspace / "pool").iterdir()}
    shutil.rmtree(copy.workspace / "pool")
    told = copy.run({"runtime.task_runner": "dask", "runtime.workers": 2}, until="shards")
    assert ran(told) == {"pool"}
    assert {p: (p / "images.npy").read_bytes() for p in before} == before


def test_without_persons_the_split_is_refused_with_both_ways_out(finished, tmp_path):
    copy = finished.copy(tmp_path)
    (copy.raw / "persons.csv").unlink()
    with pytest.raises(ConfigError, match=r"--persons FILE, or --by-image"):
        copy.run()
    told = copy.run(by_image=True, until="split")
    assert ran(told) == {"split"}
