import importlib
import sys

import pytest

from tasks import source
from tasks.source import code_digest, modules_behind


def forget():
    importlib.invalidate_caches()
    for function in (source._tree, source._module_digest, source._imports):
        function.cache_clear()


@pytest.fixture
def probe(tmp_path, monkeypatch):
    """Writes modules of a package that is looked for first."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(source, "PACKAGES", ("probe",))
    (tmp_path / "probe").mkdir()
    (tmp_path / "probe" / "__init__.py").write_text("", "utf-8")

    def write(name, text):
        (tmp_path / "probe" / f"{name}.py").write_text(text, "utf-8")
        forget()

    yield write
    sys.modules.pop("probe", None)
    forget()


@pytest.mark.parametrize(
    ("text", "same"),
    [
        ("x = 1\ndef f():\n    return x\n", True),
        ('"""Docs."""\nx = 1  # one\n\n\ndef f():\n    """Docs."""\n    return (x)\n', True),
        ("x = 2\ndef f():\n    return x\n", False),
        ("x = 1.0\ndef f():\n    return x\n", False),
        ("x = True\ndef f():\n    return x\n", False),
        ("x = 1\ndef g():\n    return x\n", False),
    ],
)
def test_code_digest_sees_code_and_not_comments(probe, text, same):
    probe("one", "x = 1\ndef f():\n    return x\n")
    first = code_digest(("probe.one",))
    probe("one", text)
    assert (code_digest(("probe.one",)) == first) is same


def test_modules_behind_follows_every_kind_of_import(probe):
    probe("one", "import probe.two\n")
    probe("two", "from probe import three\nfrom probe.four import x\n")
    probe("three", "def f():\n    from probe.five import y\n    return y\n")
    probe("four", "import json, os.path\nx = 1\n")
    probe("five", "from probe import one\ny = 1\n")
    probe("six", "z = 1\n")
    expected = tuple(f"probe.{name}" for name in ("five", "four", "one", "three", "two"))
    assert modules_behind("probe.one") == expected


def test_modules_behind_leaves_the_foundation_out():
    assert set(modules_behind("tasks.labels")).isdisjoint(source.FOUNDATION)
    assert "pneumonia.labels" in modules_behind("tasks.labels")


def test_code_digest_of_a_module_that_is_not_there_says_so():
    with pytest.raises(ModuleNotFoundError, match="expected a module with source"):
        code_digest(("pneumonia.nothing",))
