"""What the flows tell automations: events of Prefect, each with a sentence for a person.

    pneumonia.data.changed            the raw folder holds what the run has not seen (flow `watch`)
    pneumonia.quarantine.over_limit   more files are broken than shards.max_quarantined allows
    pneumonia.auroc.below_gate        a model's AUROC on test is below runtime.min_auroc

Each is of the resource `pneumonia.run.<run>`; its payload holds `run`, `told` and more.
"""

from prefect.events import emit_event

from flows.deployments import family

DATA_CHANGED = "pneumonia.data.changed"
OVER_LIMIT = "pneumonia.quarantine.over_limit"
BELOW_GATE = "pneumonia.auroc.below_gate"


def tell(event: str, run: str, told: str, **more: object) -> None:
    """Emit an event about a run.

    Args:
        told: one sentence for a person.
        more: plain values for a trigger or a notification.
    """
    name = family()
    emit_event(
        event,
        resource={
            "prefect.resource.id": f"pneumonia.run.{run}",
            "prefect.resource.name": f"{name} {run}",
            "pneumonia.deployment": name,
        },
        payload={"run": run, "deployment": name, "told": told, **more},
    )
