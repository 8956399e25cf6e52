"""The automations on a real server: a run that falls silent, and notifications that arrive."""

import json
import sys
import threading
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from uuid import uuid4

import pytest
from server import PROJECT, Server, wait_until

from flows.automations import BEAT, heartbeat
from flows.events import BELOW_GATE, OVER_LIMIT

TEMPLATES = PROJECT / "docs" / "automations"

pytestmark = pytest.mark.e2e


class Bare(Server):
    """A server on which tests tell events and set the states of runs that nobody takes up."""

    def tell(self, event, resource, **payload):
        self.ask(
            "/events",
            [
                {
                    "id": str(uuid4()),
                    "occurred": datetime.now(UTC).isoformat(),
                    "event": event,
                    "resource": {"prefect.resource.id": resource},
                    "payload": payload,
                }
            ],
        )

    def flow_run(self, deployment="silent"):
        """A run of a deployment that no worker takes up, in state Running."""
        flow = self.ask("/flows/", {"name": "pipeline"})["id"]
        made = self.ask("/deployments/", {"name": deployment, "flow_id": flow})["id"]
        run = self.ask(f"/deployments/{made}/create_flow_run", {})["id"]
        self.set_state(run, "RUNNING")
        return run

    def set_state(self, run, kind):
        state = {"type": kind, "name": kind.capitalize(), "message": "as the test asked"}
        self.ask(f"/flow_runs/{run}/set_state", {"state": state, "force": True})

    def state(self, run):
        return self.ask(f"/flow_runs/{run}")["state"]


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    server = Bare(tmp_path_factory.mktemp("automations"))
    try:
        server.start()
        yield server
    finally:
        server.end()


def test_setting_up_again_doubles_nothing_and_mends_what_was_changed(server):
    first = server.run(sys.executable, "-m", "flows.automations")
    assert first.splitlines() == [
        "pools        cpu, gpu",
        "automations  pneumonia heartbeat",
    ]
    [before] = server.ask("/automations/filter", {})
    wanted = {name: before[name] for name in ("name", "description", "trigger", "actions")}
    server.ask(f"/automations/{before['id']}", wanted | {"description": "changed"}, "PUT")
    server.ask("/automations/", wanted)
    assert len(server.ask("/automations/filter", {})) == 2

    server.run(sys.executable, "-m", "flows.automations")
    [after] = server.ask("/automations/filter", {})
    assert after["description"] == before["description"]
    assert sorted(pool["name"] for pool in server.ask("/work_pools/filter", {})) == ["cpu", "gpu"]
    assert after["enabled"]
    server.ask(f"/automations/{after['id']}", method="DELETE")


def test_a_run_that_falls_silent_is_crashed_and_one_that_ended_or_never_beat_is_not(server):
    made = heartbeat(silence=10).model_dump(mode="json")
    automation = server.ask("/automations/", made)["id"]
    wait_until(lambda: server.ask(f"/automations/{automation}")["enabled"])
    ended, unheard, silent = server.flow_run(), server.flow_run(), server.flow_run()
    server.tell(BEAT, f"prefect.flow-run.{ended}")
    server.set_state(ended, "COMPLETED")
    server.tell(BEAT, f"prefect.flow-run.{silent}")
    server.set_state(silent, "RUNNING")  # a sign of life, but none that it goes on
    wait_until(lambda: server.state(silent)["type"] == "CRASHED")
    assert "`prefect flow-run retry ID`" in server.state(silent)["message"]
    assert server.state(ended)["type"] == "COMPLETED"
    assert server.state(unheard)["type"] == "RUNNING"
    server.ask(f"/automations/{automation}", method="DELETE")


@pytest.fixture
def notified(server):
    """A notification block whose messages come to a local http server, and what has come."""
    received = []

    class Listener(BaseHTTPRequestHandler):
        def do_POST(self):
            received.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Listener) as listener:
        thread = threading.Thread(target=listener.serve_forever, args=(0.05,))
        thread.start()
        program = (
            "import sys; from prefect.blocks.notifications import CustomWebhookNotificationBlock\n"
            "block = CustomWebhookNotificationBlock(name='local', url=sys.argv[1], "
            "json_data={'subject': '{{subject}}', 'body': '{{body}}'})\n"
            "print(block.save('local', overwrite=True))"
        )
        url = f"http://127.0.0.1:{listener.server_port}/"
        block = server.run(sys.executable, "-c", program, url).split()[-1]
        yield block, received
        listener.shutdown()
        thread.join()


@pytest.fixture
def create(server, notified, tmp_path):
    """Creates the automation of a template as its first lines say; it is gone at the end."""

    def create(name):
        text = (TEMPLATES / f"{name}.yaml").read_text("utf-8")
        assert text.count("  block_document_id: BLOCK_ID\n") == 1
        file = tmp_path / f"{name}.yaml"
        file.write_text(text.replace("document_id: BLOCK_ID", f"document_id: {notified[0]}"))
        server.prefect("automation", "create", "--from-file", str(file))

    yield create
    for automation in server.ask("/automations/filter", {}):
        server.ask(f"/automations/{automation['id']}", method="DELETE")


@pytest.mark.parametrize(
    ("name", "event", "subject"),
    [
        ("quarantine", OVER_LIMIT, "pneumonia: too many files in quarantine in main"),
        ("auroc", BELOW_GATE, "pneumonia: AUROC below the gate in main"),
    ],
)
def test_what_a_run_tells_comes_to_a_person(server, notified, create, name, event, subject):
    create(name)
    server.tell("pneumonia.data.changed", "pneumonia.run.main", run="main", told="nothing")
    server.tell(event, "pneumonia.run.main", run="main", told="resnet18 has 0.71, not 0.80.")
    wait_until(lambda: notified[1])
    [message] = notified[1]
    assert message["subject"] == subject
    assert "resnet18 has 0.71, not 0.80." in message["body"]


def test_a_failed_run_comes_to_a_person(server, notified, create):
    create("failure")
    completed, failed = server.flow_run("rsna"), server.flow_run("rsna")
    server.set_state(completed, "COMPLETED")
    server.set_state(failed, "FAILED")
    wait_until(lambda: notified[1])
    [message] = notified[1]
    assert message["subject"] == "pneumonia: rsna is Failed"
    assert "as the test asked" in message["body"]
    assert f"prefect flow-run retry {failed}" in message["body"]
