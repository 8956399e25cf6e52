"""Prefect's UI in a real browser: the form of a deployment, a flow run, a stage's note."""

import html

import pytest
from browser import CHROMIUM, text_of
from server import served, wait_until

from pneumonia.simulate import simulate

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine"),
]


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with served(tmp_path_factory.mktemp("ui")) as server:
        yield server


def wait_for(server, page, words, profile):
    """Wait until a page shows all of these words; fails where it does not."""

    def shows():
        text = html.unescape(text_of(f"http://127.0.0.1:{server.port}{page}", profile))
        return all(each in text for each in words)

    wait_until(shows, 300)


def test_the_form_says_what_each_parameter_means(server, tmp_path):
    deployment = server.ask("/deployments/name/pipeline/rsna")["id"]
    words = ["Folder with the challenge's files.", "The last stage.", "Stages to make anew."]
    wait_for(server, f"/deployments/deployment/{deployment}/run", words, tmp_path / "profile")


def test_a_flow_run_and_its_notes_tell_the_story(server, tmp_path, small):
    simulate(tmp_path / "raw", 60, 0)
    run = server.carry_out(
        "pipeline/rsna",
        raw=tmp_path / "raw", workspace=tmp_path / "workspace", config=small, until="split",
    )  # fmt: skip
    assert run["state"]["type"] == "COMPLETED", run["state"]
    words = [run["name"], "Completed", "60 DICOM files"]
    wait_for(server, f"/runs/flow-run/{run['id']}", words, tmp_path / "profile")
    found = server.ask("/artifacts/filter", {"artifacts": {"key": {"any_": ["split-main"]}}})
    note = f"/artifacts/artifact/{found[0]['id']}"
    wait_for(server, note, ["by person", "train", "val", "test"], tmp_path / "profile")
