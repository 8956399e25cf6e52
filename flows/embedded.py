"""A Prefect API for one command: started beside it, gone when it is gone.

`pneumonia run` needs no server. Where none is configured, this one serves the command's process
on a free port of 127.0.0.1, without UI. It ends when its standard input does, and so even when
the command was killed with -9. Its database is Prefect's own: `prefect server start` shows the
run afterwards.
"""

import os
import socket
import subprocess
import sys
import threading
import time
import tomllib
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from pneumonia.errors import PneumoniaError

START_SECONDS = 180
"""Long enough for the very first start, which makes the database (19 s measured)."""

_NO_SERVER = (
    "Start it (`prefect server start`), or unset PREFECT_API_URL in the environment and in "
    "Prefect's profile to run without a server."
)
_NO_START = "The reason stands above; an unwritable or damaged ~/.prefect is the usual one."

QUIET = {
    "DO_NOT_TRACK": "1",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_UI_ENABLED": "false",
    "PREFECT__SERVER_EPHEMERAL": "1",
    "PREFECT__SERVER_FINAL": "1",
}


@contextmanager
def prefect_api() -> Iterator[Callable[[], None]]:
    """Provide `PREFECT_API_URL`; the server starts while Prefect is still being imported.

    Yields:
        A function that waits until the API answers, and raises `PneumoniaError` if it does not.
    """
    configured = os.environ.get("PREFECT_API_URL") or _url_of_profile()
    if configured:
        yield lambda: _wait(configured, None)
        return
    bypass_proxy("127.0.0.1")
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(128)
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/api"
        server = subprocess.Popen(  # noqa: S603 (this interpreter, this module)
            [sys.executable, "-m", "flows.embedded", str(listener.fileno())],
            env={**os.environ, **QUIET},
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            pass_fds=[listener.fileno()],
            start_new_session=True,  # Ctrl-C is the command's: the server sees the run's end first
        )
    os.environ["PREFECT_API_URL"] = url
    try:
        yield lambda: _wait(url, server)
    finally:
        _send_pending_logs()
        del os.environ["PREFECT_API_URL"]
        server.terminate()
        server.communicate()


def bypass_proxy(host: str) -> None:
    """Reach an address of this machine directly: a hospital's proxy does not know its loopback."""
    for name in ("NO_PROXY", "no_proxy"):
        os.environ[name] = ",".join(filter(None, [os.environ.get(name), host]))


def _url_of_profile() -> str | None:
    """The API that Prefect's active profile names, read without importing Prefect."""
    home = Path(os.environ.get("PREFECT_HOME", "~/.prefect")).expanduser()
    file = Path(os.environ.get("PREFECT_PROFILES_PATH", home / "profiles.toml")).expanduser()
    try:
        content = tomllib.loads(file.read_text("utf-8"))
        name = os.environ.get("PREFECT_PROFILE") or content["active"]
        return str(content["profiles"][name]["PREFECT_API_URL"])
    except (OSError, KeyError, TypeError, tomllib.TOMLDecodeError):  # none is configured
        return None


def _send_pending_logs() -> None:
    """Bring the last log lines to the API while there is one."""
    if "prefect.logging.handlers" in sys.modules:
        from prefect.logging.handlers import APILogHandler

        APILogHandler().flush()


def _wait(url: str, server: subprocess.Popen[bytes] | None) -> None:
    """Wait until the API answers; a server that still starts keeps the connection open."""
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            with urllib.request.urlopen(f"{url}/health", timeout=START_SECONDS):  # noqa: S310
                return
        except (OSError, ValueError) as error:
            fault: Exception = error
        ended = server is not None and server.poll() is not None
        if ended or server is None or time.monotonic() > deadline:
            raise PneumoniaError(
                f"{url}: expected a Prefect API, got {fault}. "
                + (_NO_START if server else _NO_SERVER)
            )
        time.sleep(0.05)


def serve(listener: int) -> None:
    """Serve Prefect's API on an open socket until standard input ends."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    import uvicorn
    from prefect.server.api.server import create_app

    app = create_app(ephemeral=True, ignore_cache=True)
    uvicorn.run(app, fd=listener, log_level="error", timeout_graceful_shutdown=1)


def _end_with_parent() -> None:
    sys.stdin.read()
    os._exit(0)


if __name__ == "__main__":
    serve(int(sys.argv[1]))
