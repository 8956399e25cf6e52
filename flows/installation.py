"""What must be equal on all machines that work on one workspace."""

import platform
from importlib.metadata import version

from flows.stages import STAGES
from pneumonia.errors import ConfigError
from tasks.caching import library_versions
from tasks.shards import POOL
from tasks.source import code_digest


def installation() -> dict[str, str]:
    """Versions that can change results: Python's, this project's, its libraries', its code's."""
    modules = {module for stage in (*STAGES, POOL) for module in stage.modules}
    return {
        "python": ".".join(platform.python_version_tuple()[:2]),
        "pneumonia": version("pneumonia"),
        **library_versions(),
        "code": code_digest(tuple(sorted(modules)))[:12],
    }


def check_same(theirs: dict[str, str], ours: dict[str, str], *, where: str) -> None:
    """Refuse to work together with a machine of another installation.

    Args:
        where: who `they` are, for the error.

    Raises:
        ConfigError: something differs, with all that does.

    >>> check_same({"torch": "2.14.1"}, {"torch": "2.14.1"}, where="the worker")
    """
    differ = [
        f"{name} {ours.get(name, 'not installed')} here, {theirs.get(name, 'not installed')} there"
        for name in sorted({*theirs, *ours})
        if theirs.get(name) != ours.get(name)
    ]
    if differ:
        raise ConfigError(
            f"{where}: expected the same installation on every machine, got {'; '.join(differ)}. "
            "Check out the same commit on all and run `make venv`."
        )
