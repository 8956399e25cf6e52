"""The work pools and the heartbeat automation of a Prefect server, set up as often as one likes.

`python -m flows.automations` sets them up on the server that PREFECT_API_URL names; `make serve`
does the same. What is there already is brought up to date, never doubled.
"""

import sys
from collections.abc import Sequence
from datetime import timedelta
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient
    from prefect.events.schemas.automations import AutomationCore

POOLS = ("cpu", "gpu")

BEAT = "prefect.flow-run.heartbeat"
SILENT_STATES = (
    "Completed", "Cached", "Failed", "TimedOut", "Crashed", "Cancelled", "Paused", "Suspended",
)  # fmt: skip
"""The states in which a flow run does not beat: it has ended, or waits for a person."""
BEAT_SECONDS = 30
"""How often a flow run beats; Prefect's least."""
SILENCE_SECONDS = 3 * BEAT_SECONDS
"""After so long without a beat a flow run is taken for dead: two lost beats are none."""

HEARTBEAT_ENVIRONMENT = {"PREFECT_FLOWS_HEARTBEAT_FREQUENCY": str(BEAT_SECONDS)}
"""For every process that makes flow runs: Prefect's own 180 s would look dead."""


def heartbeat(silence: int = SILENCE_SECONDS) -> "AutomationCore":
    """The automation that sets a flow run to Crashed whose process or machine has died.

    It waits for a first beat, so a run that never beats is left alone. From each beat on it waits
    for the next, or for a state in which none comes. `Running` is none of these: a run that died
    right after it would never be noticed.

    Args:
        silence: seconds; Prefect takes 10 at least.
    """
    from prefect.client.schemas.objects import StateType
    from prefect.events.actions import ChangeFlowRunState
    from prefect.events.schemas.automations import AutomationCore, EventTrigger, Posture

    return AutomationCore(
        name="pneumonia heartbeat",
        description=f"A flow run that beat and is silent for {silence} s is set to "
        f"Crashed. Every run of this server must beat each {BEAT_SECONDS} s "
        f"({'='.join(*HEARTBEAT_ENVIRONMENT.items())}).",
        trigger=EventTrigger(
            match={"prefect.resource.id": "prefect.flow-run.*"},
            after={BEAT},
            expect={BEAT, *(f"prefect.flow-run.{state}" for state in SILENT_STATES)},
            for_each={"prefect.resource.id"},
            posture=Posture.Proactive,
            threshold=1,
            within=timedelta(seconds=silence),
        ),
        actions=[
            ChangeFlowRunState(
                state=StateType.CRASHED,
                name="Crashed",
                message=f"No heartbeat for {silence} s: its process or its machine has "
                "died. Nothing finished is lost: `prefect flow-run retry ID`, with the ID of "
                "this run, goes on.",
            )
        ],
    )


def set_up_pools(client: "SyncPrefectClient") -> None:
    """Make the work pools that are missing."""
    from prefect.client.schemas.actions import WorkPoolCreate
    from prefect.exceptions import ObjectAlreadyExists
    from prefect.workers.process import ProcessWorker

    template = ProcessWorker.get_default_base_job_template()
    for name in POOLS:
        try:
            client.create_work_pool(
                WorkPoolCreate(name=name, type="process", base_job_template=template)
            )
        except ObjectAlreadyExists:
            continue


def set_up_automations(client: "SyncPrefectClient") -> list[str]:
    """Make or update the automations, by name; returns their names."""
    wanted = [heartbeat()]
    for automation in wanted:
        there = client.read_automations_by_name(automation.name)
        if there:
            client.update_automation(there[0].id, automation)
        else:
            client.create_automation(automation)
        for double in there[1:]:
            client.delete_automation(double.id)
    return [automation.name for automation in wanted]


def set_up() -> Sequence[str]:
    """Set up pools and automations; returns a line of each, for the console."""
    from prefect.client.orchestration import get_client

    with get_client(sync_client=True) as client:
        set_up_pools(client)
        names = set_up_automations(client)
    return [f"pools        {', '.join(POOLS)}", f"automations  {', '.join(names)}"]


if __name__ == "__main__":
    for line in set_up():
        sys.stdout.write(f"{line}\n")
