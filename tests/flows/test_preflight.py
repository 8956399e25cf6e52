"""What is refused before any work starts."""

import json
import os

import pytest

from flows.preflight import check
from pneumonia.artifacts import Manifest, digest, write_manifest, write_record
from pneumonia.config import parse_settings
from pneumonia.errors import ConfigError
from pneumonia.people import PATIENT_KEY
from tasks.caching import Request

NOWHERE = dict.fromkeys(("http_proxy", "https_proxy"), "http://127.0.0.1:9")


def offline(torch_home):
    """No internet, and no weights on the disk but those of `torch_home`."""
    return os.environ | NOWHERE | {"TORCH_HOME": str(torch_home)}


def test_imagenet_weights_that_cannot_be_had_are_refused_before_any_image_is_read(
    finished, tmp_path, command
):
    asked = ["run", "--raw", finished.raw, "--workspace", tmp_path / "workspace"]
    done = command(*asked, env=offline(tmp_path))
    assert done.returncode == 2, done.stdout
    assert "expected torchvision's ImageNet weights of resnet18" in done.stderr
    assert "training.weights=none" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "workspace").exists()


@pytest.fixture
def request_for(finished, tmp_path, monkeypatch):
    for name, value in offline(tmp_path).items():
        monkeypatch.setenv(name, value)

    def make(workspace, **asked):
        config = parse_settings([])
        return Request(finished.raw, workspace, config, models=("resnet18",), **asked)

    return make


def test_weights_on_this_machine_are_asked_of_nobody(request_for, tmp_path):
    hub = tmp_path / "hub" / "checkpoints"
    hub.mkdir(parents=True)
    (hub / "resnet18-f37072fd.pth").touch()
    check(request_for(tmp_path / "workspace"), "report")


def test_a_workspace_with_such_a_model_asks_nobody(request_for, tmp_path):
    key = digest("a model from ImageNet's weights")
    folder = tmp_path / "workspace" / "training" / key
    folder.mkdir(parents=True)
    made = {"model": "resnet18", "weights": "imagenet"}
    write_record({}, folder)
    write_manifest(Manifest("training", key, 1, {}, made), folder)
    assert json.loads((folder / "manifest.json").read_text("utf-8"))["key"] == key
    check(request_for(tmp_path / "workspace"), "report")


def test_until_split_asks_for_no_weights(request_for, tmp_path):
    check(request_for(tmp_path / "workspace"), "split")


def test_a_key_of_people_that_can_be_guessed_is_refused_before_work(
    request_for, tmp_path, monkeypatch
):
    monkeypatch.setenv(PATIENT_KEY, "short")
    with pytest.raises(ConfigError, match=r"PNEUMONIA_PATIENT_KEY: expected at least 16"):
        check(request_for(tmp_path / "workspace"), "split")
    check(request_for(tmp_path / "workspace"), "shards")  # nobody is hashed there


@pytest.mark.parametrize("place", ["", "stage_2_train_images/workspace"])
def test_a_workspace_among_the_data_is_refused(request_for, finished, place):
    with pytest.raises(ConfigError, match="--workspace: expected a folder apart from the data"):
        check(request_for(finished.raw / place), "labels")


@pytest.mark.parametrize("place", ["file", "file/workspace"])
def test_a_workspace_that_is_a_file_is_refused(request_for, tmp_path, place):
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match=r"expected a folder, got a file, .*/file\. Choose"):
        check(request_for(tmp_path / place), "labels")


def test_a_run_of_the_name_of_pins_is_refused(request_for, tmp_path):
    with pytest.raises(ConfigError, match="--run: expected another name than 'pinned'"):
        check(request_for(tmp_path / "workspace", run="pinned"), "labels")
