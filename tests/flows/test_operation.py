"""The daily use: the deployments of prefect.yaml, sent to real workers by a real server."""

import csv
import re

import pytest
from server import moment, served, wait_until

from pneumonia.simulate import simulate

pytestmark = pytest.mark.e2e

ALL = {
    "labels", "shards", "split", "training-custom_cnn", "predictions-custom_cnn", "evaluation",
    "cam-custom_cnn", "report",
}  # fmt: skip

LABELS = "stage_2_train_labels.csv"


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with served(tmp_path_factory.mktemp("operation")) as server:
        yield server


@pytest.fixture
def asked(finished, tmp_path, small):
    """What a deployment is asked for: a copy of the finished run, and its settings."""
    copy = finished.copy(tmp_path)
    config = {**small, "shards": {**small["shards"], "quiet_seconds": 0}}
    return {"raw": copy.raw, "workspace": copy.workspace, "config": config}


@pytest.fixture
def long(asked):
    """The same with trainings that take a while, sent to the pool `gpu`."""
    training = {**asked["config"]["training"], "epochs": 12, "patience": 12, "batch_size": 8}
    sent = {"dispatch": "deployments"}
    return {**asked, "config": {**asked["config"], "training": training, "runtime": sent}}


def message(run):
    return run["state"]["message"]


def told(server, run):
    """The first two words of each line that a flow run has logged; they come a little later."""
    return {tuple(line.split()[:2]) for line in server.logs(run)}


def move_a_box(raw):
    """Shift the first box by three pixels."""
    with (raw / LABELS).open(newline="") as file:
        rows = list(csv.reader(file))
    first = next(row for row in rows if row[-1] == "1")
    first[1] = str(float(first[1]) + 3)
    with (raw / LABELS).open("w", newline="") as file:
        csv.writer(file).writerows(rows)


def add_ten(raw, folder):
    """Ten images more, with their labels and people."""
    simulate(folder, 10, 7)
    for path in (folder / "stage_2_train_images").iterdir():
        path.rename(raw / "stage_2_train_images" / path.name)
    for name in (LABELS, "stage_2_detailed_class_info.csv", "persons.csv"):
        with (raw / name).open("a") as file:
            file.writelines((folder / name).read_text().splitlines(keepends=True)[1:])


def test_a_run_from_nothing_then_a_cached_one_then_one_stage_after_edited_boxes(
    server, asked, tmp_path
):
    asked["workspace"] = tmp_path / "fresh"
    asked["models"] = ["custom_cnn"]
    first = server.carry_out("pipeline/rsna", **asked)
    assert first["state"]["type"] == "COMPLETED", message(first)
    assert re.fullmatch(r"rsna \d{4}-\d\d-\d\d main", first["name"])
    assert message(first).startswith("160 new images; ran labels, shards, split, training-")
    states = server.task_states(first["id"])
    assert {name: states[name] for name in ALL} == dict.fromkeys(ALL, "Completed")
    wait_until(lambda: {(name, "ran") for name in ALL} <= told(server, first["id"]), 30)

    second = server.carry_out("pipeline/rsna", **asked)
    states = server.task_states(second["id"])
    assert {name: states[name] for name in ALL} == dict.fromkeys(ALL, "Cached")
    assert message(second) == "nothing has changed: 8 cached"
    assert server.seconds_running(second["id"]) <= 3  # the promise is in seconds

    move_a_box(asked["raw"])
    third = server.carry_out("cam/rsna", **asked)
    assert message(third) == "ran labels, split, cam-custom_cnn"
    used = {"shards", "training-custom_cnn", "predictions-custom_cnn"}
    wait_until(lambda: {(name, "used") for name in used} <= told(server, third["id"]), 30)


def test_a_stage_names_the_deployment_to_run_first_or_warns_of_what_is_stale(
    server, asked, tmp_path
):
    asked["models"] = ["custom_cnn"]
    nothing = server.carry_out("cam/rsna", **asked | {"workspace": tmp_path / "nothing"})
    assert nothing["state"]["type"] == "FAILED"
    assert "prefect deployment run 'shards/rsna'" in message(nothing)

    add_ten(asked["raw"], tmp_path / "ten")
    stale = server.carry_out("evaluation/rsna", **asked)
    assert stale["state"]["type"] == "COMPLETED"
    assert "shards is stale (10 new files since " in message(stale)


def test_ten_new_images_are_seen_by_the_watch_whose_event_starts_the_pipeline(
    server, asked, tmp_path
):
    def pipelines():
        found = server.ask("/flow_runs/filter", {"flows": {"name": {"any_": ["pipeline"]}}})
        here = str(asked["workspace"])
        return [run["id"] for run in found if run["parameters"].get("workspace") == here]

    before = server.carry_out("watch/rsna", **asked)
    assert (message(before), "unchanged" in before["tags"]) == ("nothing has changed", True)
    assert pipelines() == []

    add_ten(asked["raw"], tmp_path / "ten")
    seen = server.carry_out("watch/rsna", **asked)
    assert "changed" in seen["tags"]
    assert "shards: 10 new files since " in message(seen)
    [started] = wait_until(pipelines)
    ended = server.ended(started)
    assert message(ended).startswith("10 new images; ran labels, shards, split, training-")
    assert ended["parameters"]["config"]["shards"]["image_size"] == 32  # the watch's own recipe

    after = server.carry_out("watch/rsna", **asked)
    assert "unchanged" in after["tags"], message(after)
    assert len(pipelines()) == 1


def spans(server, run):
    """When each training that a run has sent was at work, by its name's last word."""
    return {
        name.split()[-1]: (moment(child["start_time"]), moment(child["end_time"]))
        for name, child in server.children(run).items()
        if child["deployment_id"]
    }


def test_two_gpu_workers_train_side_by_side_one_in_turn_and_cancelling_ends_all(server, long):
    workers = [server.worker("gpu", f"gpu-{number}", limit=1) for number in (1, 2)]
    run = server.carry_out("pipeline/rsna", **long)
    assert run["state"]["type"] == "COMPLETED", message(run)
    assert "had training-custom_cnn, training-resnet18 trained" in message(run)
    cnn, resnet = (spans(server, run["id"])[model] for model in ("custom_cnn", "resnet18"))
    assert max(cnn[0], resnet[0]) < min(cnn[1], resnet[1])

    workers[1].terminate()
    workers[1].wait(60)
    run = server.carry_out("pipeline/rsna", **long, refresh=["training"])
    assert run["state"]["type"] == "COMPLETED", message(run)
    cnn, resnet = (spans(server, run["id"])[model] for model in ("custom_cnn", "resnet18"))
    assert min(cnn[1], resnet[1]) <= max(cnn[0], resnet[0])

    training = {**long["config"]["training"], "epochs": 900, "patience": 900}
    long["config"] = {**long["config"], "training": training}
    run = server.send("pipeline/rsna", **long)
    wait_until(lambda: server.processes("pneumonia.training"))
    server.prefect("flow-run", "cancel", run)
    wait_until(lambda: not server.processes("pneumonia.training"), 15)
    wait_until(lambda: not server.processes("prefect.engine"), 15)
    assert server.ended(run)["state"]["type"] == "CANCELLED"
    for child in server.children(run).values():
        assert server.ended(child["id"])["state"]["type"] in {"CANCELLED", "COMPLETED"}


@pytest.mark.parametrize(
    ("parameters", "name"),
    [
        ({"config": {"training": {"epochs": 0}}}, "epochs"),
        ({"config": {"training": {"epoch": 3}}}, "epoch"),
        ({"models": ["vgg16"]}, "vgg16"),
        ({"until": "labls"}, "labls"),
        ({"verify": "perhaps"}, "verify"),
    ],
)
def test_a_wrong_parameter_is_refused_by_its_name_before_a_run_is_made(server, parameters, name):
    def runs():
        return server.ask("/flow_runs/count", {"deployments": {"name": {"any_": ["rsna"]}}})

    before = runs()
    with pytest.raises(AssertionError, match=name):
        server.send("pipeline/rsna", **parameters)
    assert runs() == before
