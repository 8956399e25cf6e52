"""The report in a real browser, at the width of a desk and of a phone."""

import http.server
import json
import re
import shutil
import subprocess
import threading
from functools import partial

import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine"),
]

PROBE = """<!doctype html><title>probe</title><iframe id="page" src="/report.html"
style="width:{width}px;height:900px;border:0"></iframe><pre id="told"></pre><script>
document.getElementById("page").addEventListener("load", (event) => {{
  const inside = event.target.contentDocument;
  const pictures = [...inside.images];
  document.getElementById("told").textContent = JSON.stringify({{
    width: inside.documentElement.clientWidth,
    scroll: inside.documentElement.scrollWidth,
    pictures: pictures.length,
    broken: pictures.filter((picture) => !picture.naturalWidth).length,
    headings: inside.querySelectorAll("h2").length,
  }});
}});
</script>"""
"""A page around the report that says what the browser made of it."""


@pytest.fixture(scope="module")
def served(finished, tmp_path_factory):
    """Serves the report of a finished run and a probe per width; gives address and requests."""
    folder = tmp_path_factory.mktemp("served")
    shutil.copy(finished.linked("report") / "report.html", folder)
    for width in (1280, 390):
        (folder / f"{width}.html").write_text(PROBE.format(width=width), "utf-8")
    requests = []

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_):
            requests.append(self.path)

    server = http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), partial(Handler, directory=str(folder))
    )
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", requests
    server.shutdown()
    server.server_close()


def visit(address, profile):
    """What the probe says, and the lines of the browser's console."""
    done = subprocess.run(
        [
            CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic",
            "--no-first-run", "--disable-background-networking", "--disable-component-update",
            "--disable-sync", "--hide-scrollbars", "--enable-logging=stderr",
            f"--user-data-dir={profile}", "--virtual-time-budget=20000", "--dump-dom", address,
        ],
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    told = re.search(r'<pre id="told">(\{.*?\})</pre>', done.stdout)
    assert told, done.stdout[:500]
    console = [line for line in done.stderr.splitlines() if ":CONSOLE" in line]
    return json.loads(told.group(1)), console


@pytest.mark.parametrize("width", [1280, 390])
def test_the_report_fits_its_window_and_asks_for_nothing(served, tmp_path, width):
    address, requests = served
    requests.clear()
    told, console = visit(f"{address}/{width}.html", tmp_path)
    assert console == []
    assert told["width"] == width
    assert told["scroll"] <= width
    assert told["pictures"] >= 10
    assert told["broken"] == 0
    assert told["headings"] >= 8
    assert set(requests) <= {f"/{width}.html", "/report.html", "/favicon.ico"}


def test_the_probe_sees_a_page_that_is_too_wide(tmp_path):
    """So that the test above can fail."""
    wide = "<!doctype html><p style='width:2000px'>wide</p><img src='/nothing.png'>"
    probe = PROBE.format(width=390).replace('src="/report.html"', f'srcdoc="{wide}"')
    file = tmp_path / "probe.html"
    file.write_text(probe, "utf-8")
    told, _ = visit(file.as_uri(), tmp_path / "profile")
    assert told["scroll"] >= 2000
    assert told["broken"] == 1
