"""Tests never touch the user's own Prefect: they have a home and a server of their own."""

import os
import tempfile

import pytest

from flows import console, embedded

_HOME = tempfile.TemporaryDirectory(prefix="pneumonia-prefect-")
os.environ["PREFECT_HOME"] = _HOME.name  # before anything imports Prefect
for name in ("PREFECT_API_URL", "PREFECT_PROFILE", "PNEUMONIA_HOME"):
    os.environ.pop(name, None)
console.set_up()


@pytest.fixture(scope="session")
def prefect_server():
    """A real Prefect API for flows that are run in this process."""
    from prefect.settings import PREFECT_API_URL, temporary_settings

    with embedded.prefect_api() as wait:
        wait()
        url = os.environ["PREFECT_API_URL"]
        with temporary_settings({PREFECT_API_URL: url}):
            yield url
