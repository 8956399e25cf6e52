"""The command, as a person calls it: output, errors and exit status."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from flows.cli import parser
from pneumonia.config import MODELS

PROJECT = Path(__file__).parents[2]
SETTINGS = [
    "--models", "custom_cnn",
    "--set", "shards.image_size=32", "--set", "shards.images_per_shard=64",
    "--set", "split.val_fraction=0.25", "--set", "split.test_fraction=0.25",
    "--set", "training.weights=none", "--set", "training.epochs=1",
    "--set", "evaluation.n_resamples=50", "--set", "cam.n_images=4",
]  # fmt: skip


def request(pipeline):
    return ["--raw", pipeline.raw, "--workspace", pipeline.workspace, *SETTINGS]


def test_a_cached_run_imports_neither_torch_nor_lightning(finished, tmp_path):
    script = (
        "import sys; from flows.cli import main; status = main(sys.argv[1:]);"
        "heavy = {'torch', 'pytorch_lightning', 'torchvision', 'matplotlib', 'sklearn'};"
        "print('imported:', sorted(heavy & set(sys.modules))); sys.exit(status)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, "run", *map(str, request(finished))],
        capture_output=True, text=True, timeout=120, check=False, cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "imported: []" in done.stdout
    assert " ran " not in done.stdout
    assert done.stderr == ""


@pytest.mark.parametrize(
    ("module", "edit", "expected"),
    [
        ("cam", "\nEDITED = 1\n", {"cam-custom_cnn", "report"}),
        ("cam", "\n# a comment\n", set()),
        ("report.html", "\n<!-- edited -->\n", {"report"}),
        ("fitting", "\nEDITED = 1\n", set()),  # nobody loses a day of GPU time to an edit
    ],
)
def test_an_edit_of_code_runs_what_stands_on_it(finished, tmp_path, module, edit, expected):
    copy, project = finished.copy(tmp_path), tmp_path / "project"
    for package in ("flows", "tasks", "pneumonia"):
        shutil.copytree(PROJECT / package, project / package)
    source = project / "pneumonia" / (module if "." in module else f"{module}.py")
    source.write_text(source.read_text("utf-8") + edit, "utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "flows.cli", "run", *map(str, request(copy))],
        cwd=project, env=os.environ | {"PYTHONPATH": str(project)}, capture_output=True, text=True,
        timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    told = [line.split() for line in done.stdout.splitlines()]
    assert {words[0] for words in told if words[1:2] == ["ran"]} == expected


def test_status_says_fresh_then_stale_and_why(finished, tmp_path, command):
    copy = finished.copy(tmp_path)
    fresh = command("status", *request(copy))
    assert fresh.returncode == 0, fresh.stderr
    assert {line.split()[1] for line in fresh.stdout.splitlines()} == {"fresh"}
    stale = command("status", *request(copy), "--set", "training.learning_rate=0.1")
    told = {line.split()[0]: line for line in stale.stdout.splitlines()}
    assert "stale" in told["training-custom_cnn"]
    assert "learning_rate 0.001 -> 0.1" in told["training-custom_cnn"]
    assert "waiting  for training-custom_cnn" in told["predictions-custom_cnn"]
    (copy.raw / "stage_2_train_images").joinpath("new.dcm").write_bytes(b"\0" * 2000)
    new = command("status", *request(copy), "--set", "shards.quiet_seconds=0")
    assert "1 new files since" in new.stdout
    anew = ["--set", "shards.quiet_seconds=0", "--set", "shards.image_size=64"]
    other = command("status", *request(copy), *anew)
    assert "image_size 32 -> 64: 161 files to convert" in other.stdout


def test_status_of_a_mistyped_workspace_is_refused_and_makes_none(finished, tmp_path, command):
    asked = ["--raw", finished.raw, "--workspace", tmp_path / "nowhere"]
    done = command("status", *asked)
    assert done.returncode == 2
    assert "--workspace: expected a workspace, got" in done.stderr
    assert not (tmp_path / "nowhere").exists()


def test_predict_gives_the_probabilities_of_the_run(finished, tmp_path, command):
    predictions = pd.read_parquet(finished.linked("predictions-custom_cnn") / "predictions.parquet")
    test = predictions[predictions["split"] == "test"].set_index("image_id")
    folder = finished.raw / "stage_2_train_images"
    broken = tmp_path / "broken.dcm"
    broken.write_bytes(b"no DICOM file")
    done = command(
        "predict", *(folder / f"{name}.dcm" for name in test.index), broken,
        "--workspace", finished.workspace, "--model", "custom_cnn", "--out", "out.csv",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"out.csv: {len(test):,} files predicted, 1 refused\n"
    table = pd.read_csv(tmp_path / "out.csv").set_index("image_id")
    assert list(table.columns) == ["file", "logit", "probability", "positive", "reason"]
    known = table.loc[test.index]
    np.testing.assert_allclose(known["probability"], test["probability"], rtol=0, atol=1e-6)
    assert known["reason"].isna().all()
    refused = table.loc["broken"]
    assert pd.isna(refused["probability"])
    assert refused["reason"].startswith("not_dicom: ")


def test_predict_refuses_a_calibration_of_another_checkpoint(finished, tmp_path, command):
    copy = finished.copy(tmp_path)
    copy.run({"training.learning_rate": 0.0005}, until="training")
    asked = ["--workspace", copy.workspace, "--model", "custom_cnn", "--out", "out.csv"]
    done = command("predict", copy.raw / "stage_2_train_images", *asked)
    assert done.returncode == 1
    assert "expected the calibration of training/" in done.stderr
    assert not (tmp_path / "out.csv").exists()


@pytest.mark.parametrize(
    ("model", "setting", "told"),
    [
        ("custom_cnn", "shards.image_size=64", "--set: expected evaluation.operating_point"),
        (
            "resnet18",
            "evaluation.operating_point=p_0.5",
            "has finished (custom_cnn), got 'r",
        ),
        (
            "resnet19",
            "evaluation.operating_point=p_0.5",
            "has finished (custom_cnn), got 'r",
        ),
    ],
)
def test_predict_refuses_what_the_model_cannot_give(finished, command, model, setting, told):
    done = command(
        "predict", finished.raw / "stage_2_train_images", "--workspace", finished.workspace,
        "--model", model, "--out", "out.csv", "--set", setting,
    )  # fmt: skip
    assert done.returncode == 2
    assert told in done.stderr


def test_verify_names_the_altered_file_and_writes_nothing(finished, tmp_path, command):
    copy = finished.copy(tmp_path)
    assert command("verify", "--workspace", copy.workspace).stdout == "Every artifact is whole.\n"
    checkpoint = copy.linked("training-custom_cnn") / "checkpoint.ckpt"
    content = bytearray(checkpoint.read_bytes())
    content[len(content) // 2] ^= 1
    checkpoint.write_bytes(content)
    done = command("verify", "--workspace", copy.workspace)
    assert done.returncode == 1
    assert "checkpoint.ckpt: its bytes have changed" in done.stderr
    assert "`pneumonia run --verify`" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    (copy.workspace / "runs" / "main" / "training-custom_cnn").unlink()
    assert "No run uses it any more" in command("verify", "--workspace", copy.workspace).stderr


def test_simulate_says_what_it_made(tmp_path, command):
    done = command("simulate", "out", "--images", "5", "--seed", "3")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("out: 5 simulated images, ")
    assert len(list((tmp_path / "out" / "stage_2_train_images").glob("*.dcm"))) == 5


def test_bench_prints_a_table_of_every_way(command):
    done = command("bench", "conversion", "--images", "4", "--rounds", "1", "--side", "128")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("4 films to 128 px, ")
    rows = [line.split(" | ") for line in done.stdout.splitlines() if line.startswith("| ")][1:]
    ways = {cells[0].strip("| "): float(cells[3].strip("| ")) for cells in rows}
    assert ways["this, 1 thread"] == 1.0
    assert {"bare decode at 1/8", "naive: pydicom, Pillow, OpenCV"} < set(ways)


def test_bench_cam_sets_the_map_beside_the_forward_pass(command):
    done = command("bench", "cam", "--images", "1", "--side", "32", "--rounds", "1")
    assert done.returncode == 0, done.stderr
    rows = [line.split(" | ") for line in done.stdout.splitlines() if line.startswith("| ")][1:]
    ways = {(cells[0].strip("| "), cells[1]) for cells in rows}
    names = {"forward pass alone", "exact CAM"}
    assert {(model, name) for model in MODELS for name in names} <= ways


def test_bench_evaluation_times_every_model_and_the_whole(command):
    done = command("bench", "evaluation", "--images", "300", "--people", "150", "--resamples", "10")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("300 test images of ")
    rows = [line for line in done.stdout.splitlines() if line.startswith("| ")][1:]
    assert [row.split()[1] for row in rows] == ["bootstrap", "bootstrap", "the"]


@pytest.mark.parametrize(
    ("arguments", "status", "told"),
    [
        (["run"], 2, "--raw"),
        (["run", "--raw", "nowhere", "--workspace", "w"], 2, "--raw: expected a folder"),
        (["run", "--raw", ".", "--workspace", "w"], 2, "expected the challenge's label file"),
        (["run", "--raw", ".", "--workspace", "w", "--set", "a=1"], 2, "expected `section.field="),
        (
            ["predict", "x.dcm", "--workspace", "w", "--model", "resnet18", "--out", "o"],
            2,
            "got nothing",
        ),
        (["verify", "--workspace", "nowhere"], 2, "--workspace: expected a folder"),
        (["verify", "--workspace", "."], 2, "which has none"),
        (
            ["predict", ".", "--workspace", "w", "--model", "m", "--out", "a/b"],
            2,
            "--out: expected",
        ),
        (["predict", ".", "--workspace", "w", "--model", "m", "--out", "."], 2, "--out: expected"),
        (
            ["predict", ".", "--workspace", "w", "--model", "resnet18", "--out", "o"],
            2,
            "w: expected one of its runs (it has none), got 'main'",
        ),
        (["simulate", "out", "--images", "0"], 2, "at least 1"),
        (
            ["bench", "speed"],
            2,
            "bench: expected one of cached, cam, conversion, evaluation, feeding, gpu, pipeline, "
            "shards, training, verify, got 'speed'",
        ),
        (["nothing"], 2, "invalid choice"),
    ],
)
def test_a_wrong_request_ends_with_status_2_and_one_sentence(command, arguments, status, told):
    done = command(*arguments)
    assert done.returncode == status, done.stdout + done.stderr
    assert told in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ["compare", "a", "b", "--workspace", "w", "--model", "resnet18"],
        ["run", "--raw", "r", "--workspace", "w", "--untill", "labels"],
        ["verify", "--workspace", "w", "more"],
        ["predict"],
    ],
)
def test_a_wrong_argument_of_a_command_shows_the_usage_of_that_command(capsys, arguments):
    with pytest.raises(SystemExit, match="2"):
        parser().parse_args(arguments)
    told = capsys.readouterr().err
    assert told.startswith(f"usage: pneumonia {arguments[0]} ")
    assert f"pneumonia {arguments[0]}: error: " in told.splitlines()[-1]


def test_bench_hands_on_what_it_does_not_know():
    asked = ["bench", "cam", "--images", "1", "--side", "32"]
    assert parser().parse_args(asked).arguments == asked[2:]


def test_a_run_that_fails_ends_with_status_1_and_one_line(finished, tmp_path, command):
    copy = finished.copy(tmp_path)
    labels = copy.raw / "stage_2_train_labels.csv"
    labels.write_text(labels.read_text("utf-8").replace(",1\n", ",7\n", 1), "utf-8")
    done = command("run", *request(copy), "--until", "labels")
    assert done.returncode == 1
    assert done.stderr.startswith("LabelError: ")
    assert len(done.stderr.splitlines()) == 1, done.stderr
