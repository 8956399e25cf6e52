"""A finished model on a second hospital's films: fewer positives, flatter contrast."""

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pydicom
import pytest

from flows.external import external, publish
from pneumonia.artifacts import Artifact, read_manifest
from pneumonia.config import parse_settings
from pneumonia.errors import ConfigError, PneumoniaError, StaleArtifactError
from pneumonia.phantom import encode_jpeg
from pneumonia.secondary_capture import wrap
from pneumonia.simulate import simulate

MODEL = "custom_cnn"
IMAGES = "stage_2_train_images"
LABELS = "stage_2_train_labels.csv"
FILES = {"report.html", "evaluation.json", "cam.json", "predictions.csv", "duplicates.csv"}


def flatten(path):
    """Write a film again with 60 % of its contrast."""
    film = pydicom.dcmread(path)
    pixels = film.pixel_array
    path.write_bytes(
        wrap(
            encode_jpeg((70 + 0.6 * pixels).astype(np.uint8)),
            side=pixels.shape[0],
            image_id=path.stem,
            view=film.ViewPosition,
            sex=film.PatientSex,
            age=int(film.PatientAge),
            spacing=float(film.PixelSpacing[0]),
        )
    )


@pytest.fixture(scope="module")
def other(tmp_path_factory):
    """96 films; half of the positives have lost their label."""
    raw = tmp_path_factory.mktemp("other") / "raw"
    simulate(raw, 96, 2)
    for path in (raw / IMAGES).iterdir():
        flatten(path)
    labels = pd.read_csv(raw / LABELS)
    positive = labels.loc[labels["Target"] == 1, "patientId"].unique()
    labels[~labels["patientId"].isin(positive[::2])].to_csv(raw / LABELS, index=False)
    return raw


def ask(raw, home, out, **asked):
    external(
        **{"raw": raw, "workspace": home.workspace, "model": MODEL, "out": out}
        | {"config": parse_settings(["shards.quiet_seconds=0"])}
        | asked
    )


@pytest.fixture(scope="module")
def out(finished, other, tmp_path_factory):
    """The folder of an external test; copy it before changing it."""
    folder = tmp_path_factory.mktemp("external") / "out"
    before = snapshot(finished.workspace)
    ask(other, finished, folder)
    assert snapshot(finished.workspace) == before  # the home workspace is only read
    return folder


def snapshot(folder):
    """Every file and link of a folder with what would change if it were written."""
    return {
        path: (path.lstat().st_mtime_ns, path.lstat().st_ino, path.lstat().st_size)
        for path in folder.rglob("*")
    }


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def evaluation_of(folder):
    return json.loads((folder / "evaluation.json").read_text("utf-8"))


def test_shift_is_reported_and_thresholds_are_those_of_home(finished, other, out):
    told = evaluation_of(out)
    home = json.loads((finished.linked("evaluation") / "evaluation.json").read_text("utf-8"))
    decisions = json.loads(
        (finished.linked(f"predictions-{MODEL}") / "operating_points.json").read_text("utf-8")
    )
    shift, block = told["external"]["shift"], told["models"][MODEL]
    for name in ("auroc", "log_loss", "calibration_slope", "calibration_intercept", "recall"):
        assert shift["home"][name] == home["models"][MODEL]["test"][name]
        assert shift["here"][name] == block["test"][name]
    assert block["threshold"] == home["models"][MODEL]["threshold"]
    assert block["calibration"] == decisions["calibration"]
    assert shift["thresholds"] == {
        name: point["threshold"] for name, point in decisions["operating_points"].items()
    }
    labels = pd.read_csv(other / LABELS).drop_duplicates("patientId")
    assert told["data"]["images"] == len(labels)
    assert shift["here"]["prevalence"]["value"] == pytest.approx(labels["Target"].mean())
    assert shift["here"]["prevalence"]["value"] < shift["home"]["prevalence"]["value"]
    assert shift["difference"]["calibration_intercept"]["value"] != 0
    assert told["data"]["unlabelled_files"] == 96 - len(labels)
    assert told["data"]["left_out"] == {"same_pixels": 0, "same_name": 0}
    people, at_home = (pd.read_csv(raw / "persons.csv", dtype=str) for raw in (other, finished.raw))
    same = people["person"].isin(at_home["person"])
    same &= people["patientId"].isin(labels["patientId"])
    shared = told["data"]["people_of_home"]
    assert (shared["people"], shared["images"]) == (people["person"][same].nunique(), same.sum())
    assert sum(shared["sides"].values()) == shared["people"] > 0  # one numbering, two data sets
    assert told["controls"]["metadata_only"]["val"] == home["controls"]["metadata_only"]["val"]


def test_probabilities_are_those_of_predict(finished, other, out, tmp_path, command):
    table = pd.read_csv(out / "predictions.csv").set_index("image_id")
    assert list(table.columns) == ["logit", "probability", "positive", "target"]
    done = command(
        "predict", other / IMAGES, "--workspace", finished.workspace, "--model", MODEL,
        "--out", "predicted.csv",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    predicted = pd.read_csv(tmp_path / "predicted.csv").set_index("image_id").loc[table.index]
    np.testing.assert_allclose(table["probability"], predicted["probability"], rtol=0, atol=1e-9)
    assert (table["positive"] == predicted["positive"].astype(bool)).all()


def test_folder_holds_the_report_and_what_it_needs(out):
    panels = json.loads((out / "cam.json").read_text("utf-8"))["panels"]
    assert panels
    assert set(contents(out)) == FILES | {panel["file"] for panel in panels}
    page = (out / "report.html").read_text("utf-8")
    assert f"<title>External test of {MODEL} from run main on " in page
    assert "No image here has the pixels or the name of one of that run" in page
    assert "do not show that the home calibration" in page or "does not fit here" in page
    for untrue in ("no other hospital has been tried", "had not seen", "Split by image"):
        assert untrue not in page


def test_second_call_rewrites_nothing(finished, other, out):
    before = snapshot(out)
    ask(other, finished, out)
    assert snapshot(out) == before


def test_another_folder_gets_the_same_bytes(finished, other, out, tmp_path):
    ask(other, finished, tmp_path / "again")
    assert contents(tmp_path / "again") == contents(out)


def test_files_that_were_changed_or_lost_are_put_back(finished, other, out, tmp_path):
    copy = tmp_path / "out"
    shutil.copytree(out, copy, symlinks=True)
    (copy / "predictions.csv").unlink()
    (copy / "evaluation.json").write_text("{}")
    ask(other, finished, copy)
    assert contents(copy) == contents(out)


def test_copy_that_is_cut_short_leaves_no_report(out, tmp_path):
    copy = tmp_path / "out"
    shutil.copytree(out, copy, symlinks=True)
    (copy / "evaluation.json").unlink()
    (copy / "evaluation.json").mkdir()  # nothing can be renamed over a folder
    (folder,) = (copy / "workspace" / "external").iterdir()
    with pytest.raises(OSError, match="directory"):
        publish(Artifact(folder, read_manifest(folder)), copy)
    assert not (copy / "report.html").exists()


def test_films_of_the_home_run_are_left_out(finished, other, tmp_path):
    """Some of its films lie among the others: one under its own name, one renamed."""
    raw = tmp_path / "other"
    shutil.copytree(other, raw)
    mine = pd.read_csv(finished.raw / LABELS).drop_duplicates("patientId").head(2)
    names = [mine["patientId"].iloc[0], "renamed"]
    for name, known in zip(names, mine["patientId"], strict=True):
        shutil.copy(finished.raw / IMAGES / f"{known}.dcm", raw / IMAGES / f"{name}.dcm")
    table = pd.concat([pd.read_csv(raw / LABELS), mine.assign(patientId=names)])
    table.to_csv(raw / LABELS, index=False)
    (raw / IMAGES / f"{mine['patientId'].iloc[1]}.dcm").write_bytes(
        next((other / IMAGES).iterdir()).read_bytes()
    )
    table = pd.concat([table, mine.iloc[1:]])
    table.to_csv(raw / LABELS, index=False)
    ask(raw, finished, tmp_path / "out")
    data = evaluation_of(tmp_path / "out")["data"]
    assert data["left_out"] == {"same_pixels": 2, "same_name": 1}
    predicted = pd.read_csv(tmp_path / "out" / "predictions.csv")
    assert not set(predicted["image_id"]) & {*mine["patientId"], "renamed"}


def test_the_home_data_set_itself_is_refused_before_anything_is_made(finished, command, tmp_path):
    asked = ["--workspace", finished.workspace, "--model", MODEL, "--out", "out"]
    done = command("evaluate", "--raw", finished.raw, *asked)
    assert done.returncode == 2, done.stdout + done.stderr
    assert "--raw: expected images that the run 'main' does not have, got 160 in" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert "shards" not in done.stdout
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("there", [False, True])
def test_the_home_data_set_under_other_names_leaves_nothing_behind(finished, tmp_path, there):
    raw, out = tmp_path / "renamed", tmp_path / "out"
    shutil.copytree(finished.raw, raw)
    for film in (raw / IMAGES).iterdir():
        film.rename(film.with_name(f"x-{film.name}"))
    for table in raw.glob("*.csv"):
        rows = pd.read_csv(table)
        rows.assign(patientId="x-" + rows["patientId"]).to_csv(table, index=False)
    if there:
        out.mkdir()
    with pytest.raises(ConfigError, match="expected images that the home run does not have"):
        ask(raw, finished, out)
    assert out.exists() == there
    assert not (out / "workspace").exists()


def test_by_image_speaks_of_images(finished, other, tmp_path):
    raw = tmp_path / "other"
    shutil.copytree(other, raw)
    (raw / "persons.csv").unlink()
    with pytest.raises(ConfigError, match=r"expected persons\.csv or .* --by-image"):
        ask(raw, finished, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    ask(raw, finished, tmp_path / "out", by_image=True)
    page = (tmp_path / "out" / "report.html").read_text("utf-8")
    assert "each image counts as a person" in page
    assert "over people" not in page


def test_too_many_broken_files_stop_the_test_unless_allowed(finished, other, tmp_path):
    raw = tmp_path / "other"
    shutil.copytree(other, raw)
    for number in range(4):
        (raw / IMAGES / f"broken-{number}.dcm").write_bytes(b"no DICOM file")
    with pytest.raises(PneumoniaError, match=r"4 of 100 files are broken"):
        ask(raw, finished, tmp_path / "out")
    assert not (tmp_path / "out" / "report.html").exists()
    allowed = parse_settings(["shards.quiet_seconds=0", "shards.max_quarantined=0.05"])
    ask(raw, finished, tmp_path / "out", config=allowed)
    assert evaluation_of(tmp_path / "out")["data"]["quarantined"] == 4


def test_stale_calibration_or_split_is_refused(finished, other, tmp_path):
    copy = finished.copy(tmp_path)
    copy.run({"split.seed": 3}, until="split")
    with pytest.raises(StaleArtifactError, match="images and sides of split/"):
        ask(other, copy, tmp_path / "out")
    copy.run({"training.learning_rate": 0.0005}, until="training")
    with pytest.raises(StaleArtifactError, match="expected the calibration of training/"):
        ask(other, copy, tmp_path / "out")


def test_folder_with_other_content_or_inside_the_workspace_is_refused(finished, other, tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").touch()
    with pytest.raises(ConfigError, match=r"other content \(first: .*thesis\.tex\)"):
        ask(other, finished, tmp_path / "full")
    with pytest.raises(ConfigError, match="outside the workspace"):
        ask(other, finished, finished.workspace / "external")
    with pytest.raises(ConfigError, match="other content"):  # whose workspace is that of a run
        ask(other, finished, finished.workspace.parent)
    with pytest.raises(ConfigError, match="got the file"):
        ask(other, finished, other / LABELS)


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ({"run": "experiment"}, r"expected one of its runs \(main\), got 'experiment'"),
        ({"config": parse_settings(["evaluation.n_resamples=9"])}, "which is fixed in the model"),
        ({"raw": Path("nowhere")}, "--raw: expected a folder"),
        ({"persons": Path("nowhere")}, "--persons: expected a file"),
    ],
)
def test_request_that_cannot_end_well_is_refused_before_anything_is_written(
    finished, other, tmp_path, asked, told
):
    with pytest.raises(ConfigError, match=told):
        ask(**{"raw": other, "home": finished, "out": tmp_path / "out"} | asked)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("model", ["resnet18", "resnet19"])
def test_command_for_another_model_lists_those_of_the_run(finished, other, command, model):
    asked = ["--raw", other, "--workspace", finished.workspace, "--out", "out"]
    done = command("evaluate", *asked, "--model", model)
    assert done.returncode == 2, done.stdout + done.stderr
    told = f"--model: expected one that the run 'main' has finished (custom_cnn), got '{model}'"
    assert told in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_command_names_the_report_and_converts_nothing_again(finished, other, out, command):
    asked = ["--raw", other, "--workspace", finished.workspace, "--model", MODEL, "--out", out]
    done = command("evaluate", *asked)
    assert done.returncode == 0, done.stderr
    assert " ran " not in done.stdout
    assert done.stdout.splitlines()[-1] == f"Report: {out}/report.html"
