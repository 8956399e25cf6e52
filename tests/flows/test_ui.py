"""Prefect's UI in a real browser: the form of a deployment, a flow run, a stage's note."""

import html

import pytest
from browser import CHROMIUM, text_of
from server import Server, wait_until

from pneumonia.simulate import simulate

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine"),
]


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    server = Server(tmp_path_factory.mktemp("ui"), PREFECT_WORKER_QUERY_SECONDS="1")
    try:
        server.start()
        server.deploy()
        server.worker("cpu", "cpu-1")
        yield server
    finally:
        server.end()


def seen(server, page, words, profile):
    """Wait until a page shows all of these words."""

    def shows():
        text = html.unescape(text_of(f"http://127.0.0.1:{server.port}{page}", profile))
        return all(each in text for each in words)

    wait_until(shows, 300)
    return True


def test_the_form_says_what_each_parameter_means(server, tmp_path):
    deployment = server.ask("/deployments/name/pipeline/rsna")["id"]
    words = ["Folder with the challenge's files.", "The last stage.", "Stages to make anew."]
    assert seen(server, f"/deployments/deployment/{deployment}/run", words, tmp_path / "profile")


def test_a_flow_run_and_its_notes_tell_the_story(server, tmp_path, small):
    simulate(tmp_path / "raw", 60, 0)
    run = server.carry_out(
        "pipeline/rsna",
        raw=tmp_path / "raw", workspace=tmp_path / "workspace", config=small, until="split",
    )  # fmt: skip
    assert run["state"]["type"] == "COMPLETED", run["state"]
    words = [run["name"], "Completed", "60 DICOM files"]
    assert seen(server, f"/runs/flow-run/{run['id']}", words, tmp_path / "profile")
    found = server.ask("/artifacts/filter", {"artifacts": {"key": {"any_": ["split-main"]}}})
    note = f"/artifacts/artifact/{found[0]['id']}"
    assert seen(server, note, ["by person", "train", "val", "test"], tmp_path / "profile")
