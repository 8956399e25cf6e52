"""What the runs of a workspace need.

In: the links of all runs. Out: per artifact the runs that need it.

Needed is what a link names, and every pool shard that the images or the quarantine of a needed
`shards` artifact come from. Links suffice: a run links all that it goes on from. Whatever cannot be
told for certain counts as needed.
"""

from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import pandas as pd

from pneumonia.artifacts import (
    MANIFEST,
    Artifact,
    Reference,
    find_damage,
    read_manifest,
    read_table,
)
from pneumonia.errors import CorruptArtifactError
from pneumonia.workspace import Workspace

_REFUSED = ["image_id", "file_digest"]


@dataclass(frozen=True)
class Needs:
    """What runs need.

    Args:
        runs: the runs that need an artifact, by its name.
        doubts: a sentence for each artifact that is needed and not whole.
    """

    runs: dict[Reference, frozenset[str]]
    doubts: tuple[str, ...]


def find_needs(workspace: Workspace, dropped: Collection[str] = ()) -> Needs:
    """Find what runs need.

    Args:
        dropped: runs whose links do not count.
    """
    standing = sorted(workspace.references(), key=str)
    pool = [reference for reference in standing if reference.stage == "pool"]
    runs: dict[Reference, set[str]] = defaultdict(set)
    for link, reference in workspace.links():
        run = link.partition("/")[0]
        if run not in dropped:
            runs[reference].add(run)
    for reference in [reference for reference in runs if reference.stage == "shards"]:
        for shard in _shards_behind(workspace, reference, pool):
            runs[shard] |= runs[reference]
    doubts = []
    for reference in sorted(runs, key=str):
        damage = damage_of(workspace, reference) if reference in standing else "it is missing"
        if damage:
            names = ", ".join(sorted(runs[reference]))
            doubts.append(f"{reference}, which {names} needs, is not whole: {damage}")
    return Needs({name: frozenset(users) for name, users in runs.items()}, tuple(doubts))


def damage_of(workspace: Workspace, reference: Reference) -> str:
    """What is wrong with an artifact as far as its manifest and its sizes tell, or nothing."""
    folder = workspace.path(reference)
    try:
        return "; ".join(find_damage(folder, read_manifest(folder, reference), hashed=False))
    except CorruptArtifactError:
        return f"its {MANIFEST} is missing or altered"


def _shards_behind(
    workspace: Workspace, reference: Reference, pool: Sequence[Reference]
) -> Sequence[Reference]:
    """The pool shards that hold an image or a refused file of a `shards` artifact.

    A refused file's row is all that is known of it: without that the file would be read again.
    Where the tables cannot be read nothing tells which shards these are: all of them, then.
    """
    folder = workspace.path(reference)
    try:
        artifact = Artifact(folder, read_manifest(folder, reference))
        pointed = set(artifact.table("images.parquet", ["pool"])["pool"])
        refused = artifact.table("quarantine.parquet", _REFUSED)
    except (CorruptArtifactError, FileNotFoundError):
        return pool
    return [
        shard
        for shard in pool
        if shard.key in pointed or (len(refused) and _holds(workspace, shard, artifact, refused))
    ]


def _holds(
    workspace: Workspace, shard: Reference, artifact: Artifact, refused: pd.DataFrame
) -> bool:
    """Whether a pool shard, converted as the artifact's are, holds one of these files."""
    folder = workspace.path(shard)
    try:
        manifest = read_manifest(folder, shard)
        rows = read_table(folder / "rows.parquet", [*_REFUSED, "reason"])
    except (CorruptArtifactError, FileNotFoundError):
        return False  # of no use to any run: it is left out and made again
    asked = artifact.manifest.configuration
    if not manifest.configuration.items() <= asked.items():
        return False
    return not rows[rows["reason"].notna()].merge(refused, on=_REFUSED).empty
