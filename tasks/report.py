"""The `report` stage: everything a run has found, on one page."""

from pneumonia.artifacts import Facts, Reference
from pneumonia.workspace import Scratch
from tasks.caching import Context, Plan, Request, Stage


def plan(context: Context) -> Plan:
    """Read every artifact of the run."""

    def write(scratch: Scratch) -> Facts:
        return {}

    return Plan({}, {}, write)


def publish(request: Request, reference: Reference) -> None:
    """Show the report as Prefect artifacts."""


REPORT = Stage(
    name="report",
    version=1,
    plan=plan,
    describe=str,
    needs=("labels", "shards", "split", "training", "predictions", "evaluation", "cam"),
)
