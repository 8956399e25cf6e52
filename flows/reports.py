"""A small http server for the reports of one workspace, and nothing else of it.

`/` lists the runs that have a report, `/<run>/` is the report. It listens on 127.0.0.1 and reads
only: `python -m flows.reports WORKSPACE PORT`.
"""

import html
import json
import logging
import os
import sys
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

from flows.serve_settings import LOOPBACK
from pneumonia.artifacts import RECORD, Artifact
from pneumonia.errors import ConfigError, CorruptArtifactError
from pneumonia.links import checked_name
from pneumonia.seals import read_bounded
from pneumonia.workspace import Workspace

logger = logging.getLogger(__name__)

REPORT = "report"
"""The stage that makes them, and its link name."""

_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Reports</title>
<style>body {{ font: 1rem/1.5 system-ui, sans-serif; max-width: 40rem; margin: 2rem auto;
padding: 0 1rem; color-scheme: light dark }} td, th {{ text-align: left; padding-right: 2rem }}
</style>
</head>
<body>
<h1>Reports</h1>
{content}
</body>
</html>
"""
_HEADERS = {
    "Content-Type": "text/html; charset=utf-8",
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": "default-src 'none'; img-src data:; style-src 'unsafe-inline'",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",  # the same address shows the run's next report
}


class ReportServer(ThreadingHTTPServer):
    """Serves the reports of a workspace on 127.0.0.1.

    Args:
        root: the workspace; it need not exist yet.
        port: 0 for any that is free; `server_port` tells which.
    """

    daemon_threads = True

    def __init__(self, root: Path, port: int) -> None:
        self.root = root.absolute()
        super().__init__((LOOPBACK, port), _Handler)

    def page(self, path: str) -> tuple[HTTPStatus, bytes]:
        """What stands under a path: the list, a report, or why there is none."""
        if path == "/":
            return HTTPStatus.OK, list_page(self.root).encode()
        try:
            name = path.removeprefix("/").removesuffix("/")
            return HTTPStatus.OK, read_report(self.root, checked_name(name))
        except (ConfigError, CorruptArtifactError, OSError):  # the reason would tell a path
            told = "<p>There is no such report. <a href='/'>These are there.</a></p>"
            return HTTPStatus.NOT_FOUND, _PAGE.format(content=told).encode()


def list_page(root: Path) -> str:
    """The page that lists the runs of a workspace that have a report, the last first."""
    if not root.is_dir():
        told = f"There is no workspace at <code>{html.escape(str(root))}</code> yet."
        return _PAGE.format(content=f"<p>{told} <code>pneumonia run</code> makes it.</p>")
    workspace = Workspace(root)
    names = [link.partition("/")[0] for link, _ in workspace.links() if link.endswith(f"/{REPORT}")]
    rows = []
    for name in names:
        try:
            record = json.loads(read_bounded(_artifact(workspace, name).path / RECORD))
            rows.append((str(record["started"]), name))
        except (ConfigError, CorruptArtifactError, OSError, ValueError, KeyError) as error:
            logger.warning("%s is not listed: %s", name, error)  # it has no page either
    if not rows:
        return _PAGE.format(content="<p>No run of this workspace has a report yet.</p>")
    body = "".join(
        f"<tr><td><a href='/{quote(name)}/'>{html.escape(name)}</a></td>"
        f"<td>{html.escape(when[:16].replace('T', ' '))} UTC</td></tr>"
        for when, name in sorted(rows, reverse=True)
    )
    head = "<tr><th scope='col'>run</th><th scope='col'>made</th></tr>"
    return _PAGE.format(content=f"<table>{head}{body}</table>")


def read_report(root: Path, run: str) -> bytes:
    """A run's `report.html`, where it stands in the workspace itself.

    Raises:
        ConfigError: there is no such run, or its report is not the workspace's own.
        CorruptArtifactError: the report is missing or damaged.
        OSError: it cannot be read.
    """
    workspace = Workspace(root)
    artifact = _artifact(workspace, run)
    file = artifact.path / "report.html"
    whole = workspace.root.resolve() / REPORT / artifact.reference.key / file.name
    if file.resolve() != whole:
        raise ConfigError(f"{file}: expected a file of the workspace, got a link out of it.")
    descriptor = os.open(whole, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as content:
        return content.read()


def _artifact(workspace: Workspace, run: str) -> Artifact:
    reference = workspace.linked(run, REPORT)
    if reference is None or reference.stage != REPORT:
        raise ConfigError(f"expected a run with a report, got {run!r}. Name another.")
    return workspace.get(reference)


class _Handler(BaseHTTPRequestHandler):
    """GET and HEAD; anything else is refused by the base class with 501."""

    server: ReportServer
    server_version, sys_version = "reports", ""
    timeout = 30

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def _answer(self, *, with_body: bool) -> None:
        host = urlsplit(f"//{self.headers.get('Host', '')}").hostname
        if host not in {LOOPBACK, "localhost"}:
            # a page of another name that was made to point here shall read no report
            self.send_error(HTTPStatus.MISDIRECTED_REQUEST)
            return
        path = unquote(urlsplit(self.path).path)
        status, body = self.server.page(path)
        if status is HTTPStatus.OK and not path.endswith("/"):
            self._send(HTTPStatus.MOVED_PERMANENTLY, b"", {"Location": f"{quote(path)}/"})
            return
        self._send(status, body if with_body else b"", {"Content-Length": str(len(body))})

    def _send(self, status: HTTPStatus, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in (_HEADERS | headers).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)


def main(root: str, port: str) -> None:
    """Serve until the process is ended."""
    logging.basicConfig(level=logging.WARNING)
    with ReportServer(Path(root), int(port)) as server:
        server.serve_forever()


if __name__ == "__main__":
    main(*sys.argv[1:])
