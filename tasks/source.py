"""Which code stands behind a stage, and a digest of what it does.

The modules are found by following imports from the stage's own file, those inside functions too,
so no list of them can go wrong. The digest is of their syntax trees: comments, docstrings and
layout make no difference.
"""

import ast
import hashlib
import importlib.util
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from pneumonia.artifacts import digest

PACKAGES = ("pneumonia", "tasks")
FOUNDATION = frozenset(
    {
        "pneumonia.artifacts",
        "pneumonia.config",
        "pneumonia.data_notes",
        "pneumonia.errors",
        "pneumonia.model_notes",
        "pneumonia.notes",
        "pneumonia.workspace",
        "tasks.caching",
        "tasks.notes",
        "tasks.source",
    }
)
"""What every stage stands on and no result depends on: settings are in the key by value, and notes
only tell of an artifact that is complete."""


def modules_behind(*roots: str) -> tuple[str, ...]:
    """Names of the modules that `roots` import, directly or not, and of themselves, sorted.

    >>> modules_behind("pneumonia.metrics")
    ('pneumonia.metrics',)
    """
    found: set[str] = set()
    waiting = list(roots)
    while waiting:
        module = waiting.pop()
        if module not in found and module not in FOUNDATION:
            found.add(module)
            waiting += _imports(module)
    return tuple(sorted(found))


def code_digest(modules: tuple[str, ...]) -> str:
    """Digest of what the modules do."""
    return digest({module: _module_digest(module) for module in modules})


@cache
def _tree(module: str) -> ast.Module:
    source = _source(module)
    if source is None:
        raise ModuleNotFoundError(f"{module}: expected a module with source, got none")
    return ast.parse(source.read_text("utf-8"))


@cache
def _module_digest(module: str) -> str:
    return hashlib.sha256(repr(_bare(_tree(module))).encode()).hexdigest()


@cache
def _imports(module: str) -> tuple[str, ...]:
    """This project's modules that a module imports anywhere in its source."""
    return tuple(
        name
        for node in ast.walk(_tree(module))
        for name in _named(node)
        if name.partition(".")[0] in PACKAGES and _source(name)
    )


def _named(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    if isinstance(node, ast.ImportFrom) and node.module:
        yield node.module
        yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _source(name: str) -> Path | None:
    """The file of a module, or None for a package or a name inside a module; imports nothing."""
    package, *rest = name.split(".")
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations or not rest:
        return None
    path = Path(spec.submodule_search_locations[0], *rest).with_suffix(".py")
    return path if path.is_file() else None


def _bare(node: object) -> object:
    """A syntax tree as nested tuples, without docstrings, positions and empty fields.

    Empty fields are left out because newer Pythons add some, which changes no meaning.
    """
    if isinstance(node, list):
        return tuple(_bare(item) for item in node if not _is_docstring(item))
    if not isinstance(node, ast.AST):
        return (type(node).__name__, repr(node))
    fields = ((name, value) for name, value in ast.iter_fields(node) if value not in (None, []))
    return (type(node).__name__, *((name, _bare(value)) for name, value in fields))


def _is_docstring(node: object) -> bool:
    """A string that stands alone does nothing, wherever it stands."""
    return (
        isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    )
