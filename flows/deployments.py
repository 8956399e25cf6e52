"""What a deployment adds to a flow: where it stands, how its runs are called, who its siblings are.

A deployment is called `<flow>/<name>`: `pipeline/rsna`, `cam/rsna`. Those of one name work on the
same data.
"""

import os
from pathlib import Path

from prefect.runtime import deployment, flow_run

from pneumonia.errors import ConfigError

HOME = "PNEUMONIA_HOME"
"""Environment variable: the folder that relative paths among a run's parameters start from."""


def enter() -> dict[str, str]:
    """Say where a run stands (a pull step of prefect.yaml, evaluated on the worker's machine).

    Returns:
        `directory`: that which `PNEUMONIA_HOME` names, else the checkout that is installed.

    Raises:
        ConfigError: there is no such folder.
    """
    given = os.environ.get(HOME)
    home = Path(given) if given else Path(__file__).parents[1]
    wanted = home if given else home / "prefect.yaml"
    if not wanted.exists():
        raise ConfigError(
            f"{HOME}: expected the folder that `data/` lies in, got {given or 'nothing'}. Set "
            "it in the environment of `prefect worker start`."
        )
    return {"directory": str(home)}


def family() -> str:
    """What the deployments that work on the same data as this run are called: `rsna`.

    A run that no deployment made is called by the folder that its raw folder lies in.
    """
    if deployment.name:
        return str(deployment.name)
    raw = Path(str(flow_run.parameters["raw"])).absolute()
    return raw.parent.name if raw.name == "raw" else raw.name


def sibling(flow: str) -> str:
    """The deployment of another flow that works on the same data as this run: `cam/rsna`."""
    return f"{flow}/{family()}"


def name_run() -> str:
    """What a flow run is called, `rsna 2026-11-22 main`; that of a training names its model."""
    asked, started = flow_run.parameters, flow_run.scheduled_start_time
    words = [family(), f"{started:%Y-%m-%d}", str(asked["run"]), str(asked.get("model", ""))]
    return " ".join(filter(None, words))
