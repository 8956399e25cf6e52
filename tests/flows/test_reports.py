"""The http server for reports: what it shows, and that nothing else of a workspace is read."""

import http.client
import threading

import pytest

from flows.reports import ReportServer, read_report
from pneumonia.artifacts import Manifest, Reference
from pneumonia.errors import ConfigError
from pneumonia.workspace import Workspace

PAGE = "<!doctype html><title>Käse &amp; Brot</title>"
PRIVATE = "of patient 4711"


def publish(workspace, run, digit, content=PAGE):
    """A run with a report, made as its stage makes it."""
    reference = Reference("report", digit * 32)

    def write(scratch):
        (scratch.output / "report.html").write_text(content, "utf-8")
        (scratch.output / "secret.csv").write_text(PRIVATE, "utf-8")
        return {}

    manifest = Manifest("report", reference.key, version=1, inputs={}, configuration={})
    with workspace.lock(reference) as lock:
        built = workspace.build(manifest, write, lock=lock)
    workspace.link(run, "report", reference)
    return built.path


@pytest.fixture
def workspace(tmp_path):
    workspace = Workspace(tmp_path / "work" / "space")
    publish(workspace, "main", "a")
    (tmp_path / "secret.csv").write_text(PRIVATE, "utf-8")
    return workspace


@pytest.fixture
def ask(workspace):
    """Sends a request, its path as it stands, to a real server on a free port."""
    with ReportServer(workspace.root, 0) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()

        def ask(path, method="GET", **headers):
            connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=30)
            connection.request(method, path, headers=headers)
            answer = connection.getresponse()
            body = answer.read().decode("utf-8")
            connection.close()
            return answer.status, dict(answer.getheaders()), body

        yield ask
        server.shutdown()
        thread.join()


def test_a_report_is_shown_as_it_was_written(ask):
    status, headers, body = ask("/main/")
    assert (status, body) == (200, PAGE)
    assert headers["Content-Type"] == "text/html; charset=utf-8"
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Content-Length"] == str(len(PAGE.encode()))


def test_the_list_names_every_run_with_a_report(ask, workspace):
    publish(workspace, "larger", "b")
    workspace.link("unfinished", "labels", Reference("labels", "c" * 32))
    status, headers, body = ask("/")
    assert (status, headers["Content-Type"]) == (200, "text/html; charset=utf-8")
    assert "<a href='/main/'>main</a>" in body
    assert "<a href='/larger/'>larger</a>" in body
    assert "unfinished" not in body


def test_a_report_that_was_made_again_is_shown_under_the_same_address(ask, workspace):
    publish(workspace, "main", "d", "the next")
    assert ask("/main/")[2] == "the next"


def test_the_address_without_its_last_slash_leads_to_the_report(ask):
    status, headers, _ = ask("/main")
    assert (status, headers["Location"]) == (301, "/main/")


def test_head_sends_the_headers_alone(ask):
    status, headers, body = ask("/main/", "HEAD")
    assert (status, headers["Content-Length"], body) == (200, str(len(PAGE.encode())), "")


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS"])
def test_nothing_can_be_changed(ask, method):
    assert ask("/main/", method)[0] == 501


@pytest.mark.parametrize(
    "path",
    [
        "/main/secret.csv",
        "/main/report.html",
        "/secret.csv",
        "/../secret.csv",
        "/../../secret.csv",
        "/%2e%2e/%2e%2e/secret.csv",
        "/..%2f..%2fsecret.csv",
        "/%252e%252e/secret.csv",
        "//secret.csv",
        "/main/../../../../secret.csv",
        "/main/%2e%2e/report/",
        "/report/" + "a" * 32 + "/secret.csv",
        "/.state/",
        "/runs/",
        "/runs/main/report/secret.csv",
        "/main%00/",
        "/main%0a/",
        "/main//",
        "/%ff/",
        "/\\..\\secret.csv",
        "http://127.0.0.1/../secret.csv",
        "/nobody/",
    ],
)
def test_no_path_leads_to_anything_else(ask, path):
    status, headers, body = ask(path)
    assert status == 404
    assert PRIVATE not in body
    assert headers["X-Content-Type-Options"] == "nosniff"


def test_a_link_that_leaves_the_workspace_is_not_followed(ask, workspace, tmp_path):
    place = publish(workspace, "linked", "e", PRIVATE)
    outside = tmp_path / "outside.html"
    (place / "report.html").rename(outside)
    (place / "report.html").symlink_to(outside)
    status, _, body = ask("/linked/")
    assert status == 404
    assert PRIVATE not in body
    with pytest.raises(ConfigError, match="got a link out of it"):
        read_report(workspace.root, "linked")


def test_a_run_whose_link_names_another_stage_has_no_report(ask, workspace):
    place = workspace.root / "runs" / "other"
    place.mkdir()
    (place / "report").symlink_to("../../labels/" + "a" * 32)
    assert ask("/other/")[0] == 404
    assert "other" not in ask("/")[2]


def test_a_report_folder_that_was_replaced_by_a_link_out_of_the_workspace_is_refused(
    ask, workspace, tmp_path
):
    place = publish(workspace, "moved", "f", PRIVATE)
    place.rename(tmp_path / "elsewhere")
    place.symlink_to(tmp_path / "elsewhere")
    status, _, body = ask("/moved/")
    assert status == 404
    assert PRIVATE not in body


def test_a_damaged_report_is_none(ask, workspace):
    (publish(workspace, "torn", "0") / "report.html").write_text("half", "utf-8")
    assert ask("/torn/")[0] == 404
    assert "torn" not in ask("/")[2]


def test_a_request_under_another_name_is_refused(ask):
    """A page of somebody else's that has its name point to 127.0.0.1 reads nothing."""
    status, _, body = ask("/main/", Host="elsewhere.example")
    assert status == 421
    assert PAGE not in body


def test_a_workspace_that_is_not_there_yet_is_told(tmp_path):
    with ReportServer(tmp_path / "none", 0) as server:
        status, body = server.page("/")
    assert status == 200
    assert b"There is no workspace" in body
    assert not (tmp_path / "none").exists()


def test_a_workspace_without_a_report_is_told(tmp_path):
    with ReportServer(tmp_path, 0) as server:
        status, body = server.page("/")
    assert status == 200
    assert b"No run of this workspace has a report yet." in body
