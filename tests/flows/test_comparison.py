"""`pneumonia compare`: what it tells of finished runs, what it refuses, and that it only reads."""

import pandas as pd
import pytest

from flows.comparison import compare_lines, read_run
from pneumonia.errors import ConfigError, StaleArtifactError


def contents(folder):
    return {
        path: (path.lstat().st_mtime_ns, path.lstat().st_ino, path.lstat().st_size)
        for path in folder.rglob("*")
    }


@pytest.fixture(scope="module")
def compared(finished, tmp_path_factory):
    """The finished run, an experiment with one other setting, and a run after a data update."""
    copy = finished.copy(tmp_path_factory.mktemp("compared"))
    copy.run({"training.learning_rate": 0.0005}, run="slow", until="evaluation")
    studies = pd.read_parquet(copy.linked("split") / "studies.parquet")
    tested = studies[studies["split"] == "test"]
    gone, relabelled = tested.loc[~tested["target"], "image_id"].iloc[:2]
    (copy.raw / "stage_2_train_images" / f"{gone}.dcm").unlink()
    file = copy.raw / "stage_2_train_labels.csv"
    labels = pd.read_csv(file)
    one = labels["patientId"] == relabelled
    labels.loc[one, ["x", "y", "width", "height", "Target"]] = [2.0, 2.0, 5.0, 5.0, 1]
    labels.to_csv(file, index=False)
    classes = copy.raw / "stage_2_detailed_class_info.csv"
    kinds = pd.read_csv(classes)
    kinds.loc[kinds["patientId"] == relabelled, "class"] = "Lung Opacity"
    kinds.to_csv(classes, index=False)
    copy.run(run="update", until="evaluation")
    return copy, len(tested)


def test_an_experiment_beside_main_tells_its_setting_and_every_difference(compared, tmp_path):
    pipeline, tested = compared
    before = contents(pipeline.workspace)
    page = tmp_path / "page.html"
    lines = compare_lines(["main", "slow"], workspace=pipeline.workspace, out=page)
    told = "\n".join(lines)
    assert contents(pipeline.workspace) == before
    assert "  training-custom_cnn: learning_rate 0.001 -> 0.0005" in lines
    assert "  data: the same images, sides, labels, boxes and people" in lines
    assert f"Compared: {tested} of {tested} images that are in test in both" in told
    assert "shards:" not in told
    for figure in ("AUROC", "average precision", "log loss", "Brier score", "sensitivity"):
        assert sum(line.startswith(f"custom_cnn  {figure} ") for line in lines) == 1
    rows = [line.split()[:3] for line in lines if line.startswith(("main ", "slow "))]
    assert [row for row in rows if row[1] == "custom_cnn"] == [
        ["main", "custom_cnn", str(tested)], ["slow", "custom_cnn", str(tested)],
    ]  # fmt: skip
    assert "learning_rate 0.001 -&gt; 0.0005" in page.read_text("utf-8")


def test_after_a_data_update_it_says_what_changed_and_compares_the_rest(compared):
    pipeline, tested = compared
    told = "\n".join(compare_lines(["main", "update"], workspace=pipeline.workspace, out=None))
    assert "1 image removed (test 1)" in told
    assert "labels of 1 image changed (now positive 1)" in told
    assert f"Compared: {tested - 2} of {tested - 1} images" in told
    assert "Left out: 1 whose label differs between the runs." in told
    assert "Left out: 1 test images of main that update does not have." in told
    assert "Not moved: the same probabilities." in told  # nothing of train and val has changed
    assert "training-custom_cnn" not in told


def test_a_run_that_is_not_up_to_date_is_refused(compared, tmp_path):
    pipeline = compared[0].copy(tmp_path)
    pipeline.run({"training.learning_rate": 0.002}, run="update", until="training")
    with pytest.raises(StaleArtifactError, match=r"checkpoint that the run 'update' has now"):
        read_run(pipeline.workspace, "update")


def test_a_run_without_an_evaluation_is_refused(finished, tmp_path):
    copy = finished.copy(tmp_path)
    copy.run(run="half", until="split")
    with pytest.raises(ConfigError, match=r"expected the run 'half' to have finished evaluation"):
        compare_lines(["main", "half"], workspace=copy.workspace, out=None)


def test_the_command_prints_the_comparison_and_writes_the_page(compared, tmp_path, command):
    pipeline, _ = compared
    done = command(
        "compare", "main", "slow", "--workspace", pipeline.workspace, "--out", "page.html"
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert done.stdout.startswith("Each run on its own test side")
    assert done.stdout.endswith("Page: page.html\n")
    assert (tmp_path / "page.html").is_file()


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["main"], "compare: expected two or more different runs, got main."),
        (["main", "main"], "compare: expected two or more different runs, got main main."),
        (["main", "other"], "expected one of its runs (main), got 'other'."),
        (["main", "../main"], "expected a name of letters"),
        (["main", "x", "--out", "no/page.html"], "--out: expected a file in a folder that exists"),
    ],
)
def test_a_comparison_that_cannot_be_made_ends_with_status_2(finished, command, arguments, told):
    done = command("compare", *arguments, "--workspace", finished.workspace)
    assert done.returncode == 2, done.stdout + done.stderr
    assert told in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_page_inside_the_workspace_is_refused(finished, command):
    page = finished.workspace / "page.html"
    done = command("compare", "main", "x", "--workspace", finished.workspace, "--out", page)
    assert done.returncode == 2
    assert "expected a file outside the workspace" in done.stderr
    assert not page.exists()
