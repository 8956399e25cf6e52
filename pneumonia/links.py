"""The links of runs: which artifact a run used last under which name.

WORKSPACE/runs/<run>/<name> leads to ../../<stage>/<key>. Where a folder of links is itself a link
it leads elsewhere, and nothing is read, written or deleted through it.
"""

import re
from pathlib import Path

from pneumonia.artifacts import Reference
from pneumonia.errors import ArtifactError, ConfigError

RUNS = "runs"

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


def checked_name(name: str) -> str:
    """A name that is safe as one path component.

    Raises:
        ConfigError: it is not.

    >>> checked_name("main")
    'main'
    """
    if not _NAME.fullmatch(name):
        raise ConfigError(
            f"expected a name of letters, digits, `.`, `_` and `-`, got {name!r}. Choose another."
        )
    return name


def run_folder(root: Path, run: str) -> Path:
    """Where the links of a run stand, or would.

    Raises:
        ArtifactError: a link stands in the place of the folder.
        ConfigError: the run's name is none.
    """
    folder = root / RUNS / checked_name(run)
    for path in (folder.parent, folder):
        if path.is_symlink():
            raise ArtifactError(
                f"{path}: expected a folder, got a link. Remove the link, or choose another run."
            )
    return folder


def read_link(place: Path) -> Reference | None:
    """The artifact that a link names, which is looked for here wherever the link leads."""
    names = place.readlink().parts[-2:] if place.is_symlink() else ()
    return Reference(*names) if len(names) == 2 and all(map(_NAME.fullmatch, names)) else None


def read_links(root: Path) -> list[tuple[str, Reference]]:
    """Every link of every run, as `run/name`, and the artifact it names; in order."""
    return [
        (f"{place.parent.name}/{place.name}", reference)
        for place in sorted(root.glob(f"{RUNS}/*/*"))
        if not (place.parent.is_symlink() or place.parent.parent.is_symlink())
        and (reference := read_link(place)) is not None
    ]
