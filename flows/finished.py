"""What a run of a workspace has finished, or a refusal that says what there is."""

from pathlib import Path

from pneumonia.artifacts import Artifact
from pneumonia.errors import ConfigError
from pneumonia.workspace import Workspace


def finished(root: Path, run: str, name: str) -> Artifact:
    """The artifact that `run` uses under a link name (`training-resnet18`).

    Raises:
        ConfigError: there is no such run, or it has not come so far.
        CorruptArtifactError: it is missing or damaged.
    """
    workspace = Workspace(root)
    reference = workspace.linked(run, name)
    if reference is None:
        runs = sorted({link.partition("/")[0] for link, _ in workspace.links()})
        if run not in runs:
            raise ConfigError(
                f"{root}: expected one of its runs ({', '.join(runs) or 'it has none'}), got "
                f"{run!r}. Name one of them, or another workspace."
            )
        raise ConfigError(
            f"{root}: expected the run {run!r} to have finished {name}, got no such artifact. "
            "Name another model, run or workspace, or run the pipeline first."
        )
    return workspace.get(reference)
