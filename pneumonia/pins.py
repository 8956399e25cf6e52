"""Links that people make and take away: an artifact pinned by hand, a run that is dropped.

A link below `WORKSPACE/runs/` is what keeps an artifact, whoever made it. A run under a name of its
own keeps all that it came to; a pin is a link of the run `pinned` and keeps one artifact.
"""

from collections.abc import Sequence

from pneumonia.artifacts import Reference
from pneumonia.errors import ConfigError
from pneumonia.links import RUNS, read_link, run_folder
from pneumonia.workspace import Workspace

PINNED = "pinned"
"""The run whose links are made by hand, one by one: what they name is kept as any run's is."""


def pin(workspace: Workspace, name: str) -> Reference:
    """Keep one artifact, whatever runs need.

    Args:
        name: `STAGE/KEY`, or the first digits of its key.

    Raises:
        ConfigError: no artifact or several have that name.
        CorruptArtifactError: it is damaged.
    """
    with workspace.in_use():
        reference = _named(workspace, name, workspace.references())
        workspace.get(reference)
        workspace.link(PINNED, f"{reference.stage}-{reference.key}", reference)
    return reference


def unpin(workspace: Workspace, name: str) -> Reference:
    """Take a pin away.

    Raises:
        ConfigError: no pinned artifact or several have that name.
    """
    links = [(link, ref) for link, ref in workspace.links() if link.startswith(f"{PINNED}/")]
    reference = _named(workspace, name, sorted({ref for _, ref in links}, key=str))
    for link, pinned in links:
        if pinned == reference:
            (workspace.root / RUNS / link).unlink()
    folder = workspace.root / RUNS / PINNED
    if not any(folder.iterdir()):
        folder.rmdir()
    return reference


def drop_run(workspace: Workspace, run: str) -> None:
    """Take a run's links away; call while alone in the workspace.

    Raises:
        ConfigError: there is no such run.
    """
    workspace.links_of(run)
    folder = run_folder(workspace.root, run)
    for place in folder.iterdir():
        if read_link(place) is not None:
            place.unlink()
    if not any(folder.iterdir()):
        folder.rmdir()


def _named(workspace: Workspace, name: str, among: Sequence[Reference]) -> Reference:
    stage, _, key = name.partition("/")
    long_enough = len(key) >= 8
    found = [ref for ref in among if long_enough and ref.stage == stage and ref.key.startswith(key)]
    if len(found) != 1:
        raise ConfigError(
            f"{workspace.root}: expected STAGE/KEY of one artifact, with 8 digits of its key or "
            f"more, got {name!r}, which fits {len(found)} of {len(among)}."
        )
    return found[0]
