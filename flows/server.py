"""The Prefect server of `make serve`: how it is started, and one that is found running already."""

import base64
import json
import socket
import urllib.error
import urllib.request

from flows.children import PREFECT
from flows.serve_settings import ServeSettings
from pneumonia.errors import ConfigError


def command(settings: ServeSettings) -> list[str]:
    """The words that start it."""
    place = ["--host", settings.host, "--port", str(settings.port)]
    return [*PREFECT, "server", "start", *place]


def environment(settings: ServeSettings) -> dict[str, str]:
    """What it has in its environment beside what is there; both passwords are there alone."""
    environment = {
        "PREFECT_SERVER_UI_API_URL": f"{settings.url}/api",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    }
    if settings.auth is not None:
        environment["PREFECT_SERVER_API_AUTH_STRING"] = settings.auth
    if settings.database is not None:
        environment["PREFECT_SERVER_DATABASE_CONNECTION_URL"] = settings.database
    return environment


def answers(url: str) -> bool:
    """Whether a Prefect server is healthy there; it says so without a password."""
    try:
        with urllib.request.urlopen(f"{url}/api/health", timeout=5) as answer:  # noqa: S310 (ours)
            return bool(json.load(answer) is True)
    except (OSError, ValueError):
        return False


def check_found(settings: ServeSettings) -> None:
    """Accept a server of somebody else's.

    Raises:
        ConfigError: it lacks what is asked for, a database or a password, or asks for another one.
    """
    cure = f"Stop the one on port {settings.port}, or give another PORT."
    if settings.database is not None:
        raise ConfigError(
            "POSTGRES: expected to start the server that uses it, got one that runs already "
            f"with a database of its own. {cure}"
        )
    if settings.auth is not None and _lets_in(settings.url, None):
        raise ConfigError(
            "PREFECT_API_AUTH_STRING: expected a server that asks for it, got one that lets "
            f"everybody in. {cure}"
        )
    if not _lets_in(settings.url, settings.auth):
        raise ConfigError(
            "PREFECT_API_AUTH_STRING: expected the user:password that the running server asks "
            f"for, got {'none' if settings.auth is None else 'another'}. Set it in the "
            f"environment. {cure}"
        )


def listens(host: str, port: int) -> bool:
    """Whether somebody listens on a port."""
    try:
        with socket.create_connection((host, port), timeout=5):
            return True
    except OSError:
        return False


def check_free(host: str, port: int, variable: str) -> None:
    """Make sure that a port can be listened on.

    Raises:
        ConfigError: it cannot.
    """
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise ConfigError(
                f"{variable}: expected a free port on {host}, got {port}: {error.strerror}. "
                f"Stop what listens there, or give another {variable}."
            ) from None


def _lets_in(url: str, auth: str | None) -> bool:
    """Whether a Prefect server lets in who says this, or nothing."""
    asked = urllib.request.Request(f"{url}/api/admin/version")  # noqa: S310 (ours)
    if auth is not None:
        asked.add_header("Authorization", f"Basic {base64.b64encode(auth.encode()).decode()}")
    try:
        with urllib.request.urlopen(asked, timeout=30):  # noqa: S310 (ours)
            return True
    except urllib.error.HTTPError as error:
        error.close()
        return error.code != 401
