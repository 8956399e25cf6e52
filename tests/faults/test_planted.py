"""Names that would be paths, commands, formulas or pages, planted in all input: none has effect."""

import csv
import html.parser
import json
import os
import re
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pandas as pd
import pydicom
import pytest
from browser import CHROMIUM, text_of
from harness import SETTINGS

from pneumonia.config import IMAGES_FOLDER
from pneumonia.csv_files import unquoted
from pneumonia.labels import CLASSES_CSV, LABELS_CSV
from pneumonia.people import PATIENT_KEY
from pneumonia.persons import OFFICIAL_MAPPING, PERSONS_CSV
from pneumonia.simulate import simulate

pytestmark = pytest.mark.e2e

FORMULAS = ["=1+1;", "+1+1;", "-1+1;", "@SUM(1)", "x;=1+1", "\uff1d1+1"]
PAGES = [
    '<img src=x onerror="document.title=`OWNED`">',
    "<script>document.title='OWNED'",
    "'\"><svg onload=document.title='OWNED'>",
    "[x](javascript:document.title='OWNED')",
    "|x|`x`",
    "&lt;b&gt;",
]
COMMANDS = ["$(touch OWNED)", "`touch OWNED`", ";touch OWNED;", "-rf", "{{7*7}}", "%s%n", "~root"]
NAMES = [*FORMULAS, *PAGES, *COMMANDS, "%2e%2e%2fOWNED", "CON", "a:b"]
"""Each can be a file's name, and so an image's."""
CLASS = f"{PAGES[0]}$\\frac{{$"
HIDDEN = ["....", "..\\..\\OWNED\\", "OWNED\n", "\x1b]0;OWNED\x07", "\u202egnp.exe"]
"""Each can be a file's name, and is no image's."""
PATHS = ["../../OWNED", "/OWNED", "..", "OWNED\0", "..\\OWNED"]
LENIENT = [*SETTINGS, "--set", "shards.max_quarantined=1"]
STEERING = r"[\x00-\x09\x0b-\x1f\x7f\u202e]"
"""What a terminal obeys instead of showing it."""
TAGS = {"ViewPosition": PAGES[1], "PatientSex": PAGES[0], "BodyPartExamined": "CHEST"}


def plant(raw):
    """Simulated films of which every image, file and person has a hostile name."""
    simulate(raw, 160, 1)
    persons = pd.read_csv(raw / PERSONS_CSV, dtype="str")
    ids = sorted(persons["patientId"])
    names = {old: f"{NAMES[n % len(NAMES)]}{n:03d}" for n, old in enumerate(ids)}
    for name in (LABELS_CSV, CLASSES_CSV, PERSONS_CSV):
        table = pd.read_csv(raw / name, dtype="str", keep_default_na=False)
        table["patientId"] = table["patientId"].map(names)
        if name == CLASSES_CSV:
            table["class"] = table["class"].replace({"Normal": CLASS})
        if name == PERSONS_CSV:
            table["person"] = [f"{NAMES[int(one) % len(NAMES)]}{one}" for one in table["person"]]
        table.to_csv(raw / name, index=False)
    for old, new in names.items():
        path = raw / IMAGES_FOLDER / f"{old}.dcm"
        film = pydicom.dcmread(path)
        for tag, value in TAGS.items():
            film[tag] = pydicom.DataElement(
                pydicom.datadict.tag_for_keyword(tag), "LO", value, validation_mode=0
            )
        film.save_as(path)
        path.rename(path.with_name(f"{new}.dcm"))
    first = raw / IMAGES_FOLDER / f"{names[ids[0]]}.dcm"
    for n, name in enumerate([*NAMES, *HIDDEN]):  # one film under many names
        (raw / IMAGES_FOLDER / f"{name}copy.dcm").write_bytes(first.read_bytes())
        (raw / IMAGES_FOLDER / f"{name}broken.dcm").write_bytes(b"x" * n)
    (raw / IMAGES_FOLDER / "outside.dcm").symlink_to("/etc/passwd")
    (raw / IMAGES_FOLDER / "endless.dcm").symlink_to("/dev/zero")
    (raw / IMAGES_FOLDER / "loop.dcm").symlink_to("loop.dcm")
    os.mkfifo(raw / IMAGES_FOLDER / "pipe.dcm")


FETCHED = {"src", "srcset", "action", "formaction", "data", "poster", "xlink:href", "href"}
ACTIVE = {"script", "iframe", "object", "embed", "form", "base", "animate", "set"}


class Page(html.parser.HTMLParser):
    """What of a page a browser would run or fetch by itself."""

    def __init__(self, text):
        super().__init__()
        self.effective, self.text = [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        values = {name: (value or "").strip().lower() for name, value in attrs}
        for name, value in values.items():
            asked = name in FETCHED and (tag, name) != ("a", "href")
            inner = value.startswith(("data:image/", "data:,", "#"))
            runs = name.startswith("on") or "javascript:" in value or "url(" in value
            if runs or (asked and not inner):
                self.effective.append(f"<{tag} {name}={value}>")
        if tag in ACTIVE or (tag == "meta" and values.get("http-equiv") == "refresh"):
            self.effective.append(f"<{tag}>")

    def handle_data(self, data):
        self.text.append(data)


def formulas(path):
    """Cells that a spreadsheet would take for a formula, whatever parts its cells."""
    found = []
    for separator in ",;\t":
        with path.open(encoding="utf-8", newline="") as file:
            cells = [cell for row in csv.reader(file, delimiter=separator) for cell in row]
        found += [cell for cell in cells if re.match(r"[=+\-@\t\r\n\uff1d]", cell)]
    return [cell for cell in found if not re.match(r"[+-]?\d[\d.,]*(e[+-]?\d+)?", cell)]


def around(folder, *inner):
    """All below a folder, files with size and time, less what is inside those that may change."""
    return {
        path: None if path.is_dir() else (path.lstat().st_size, path.lstat().st_mtime_ns)
        for path in folder.rglob("*")
        if not any(path.is_relative_to(each) for each in inner)
    }


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    """A folder with hostile raw data and an empty one to run in."""
    folder = tmp_path_factory.mktemp("planted")
    plant(folder / "raw")
    (folder / "here").mkdir()
    return folder


@pytest.fixture(scope="module")
def run(planted):
    """`pneumonia` in an empty folder with a Prefect of its own; nothing else there may change."""
    environment = {**os.environ, "PREFECT_HOME": str(planted / "prefect"), PATIENT_KEY: "k" * 32}
    environment.pop("PREFECT_API_URL", None)
    raw, workspace = planted / "raw", planted / "workspace"
    own = workspace, planted / "prefect", planted / "here" / "predictions.csv"

    def call(name, *more):
        asked = [name, *(["--raw", raw] if name == "run" else []), "--workspace", workspace, *more]
        before = around(planted, *own)
        done = subprocess.run(
            [sys.executable, "-m", "flows.cli", *map(str, asked)], env=environment,
            cwd=planted / "here", capture_output=True, text=True, check=False, timeout=300,
        )  # fmt: skip
        assert around(planted, *own) == before
        made = [*workspace.rglob("OWNED*"), *(planted / "prefect").rglob("OWNED*")]
        assert not [*made, *Path("/").glob("OWNED*")]
        return done

    return call


@pytest.fixture(scope="module")
def whole(planted, run):
    """A whole run on hostile names, and its report."""
    done = run("run", *LENIENT)
    assert done.returncode == 0, done.stderr
    assert not re.search(STEERING, done.stdout + done.stderr)
    return next((planted / "workspace").glob("report/*/report.html"))


def test_hostile_names_go_through_a_whole_run_and_none_has_effect(planted, run, whole):
    workspace, predicted = planted / "workspace", planted / "here" / "predictions.csv"
    done = run("predict", "--model", "custom_cnn", "--out", predicted, planted / "raw")
    assert done.returncode == 0, done.stderr
    assert not re.search(STEERING, done.stdout + done.stderr)
    split = next(workspace.glob("split/*/split.csv"))
    for table in (split, predicted):
        assert formulas(table) == []
        names = unquoted(pd.read_csv(table, dtype="str").iloc[:, 0])
        assert all(names.str.contains(word, regex=False).any() for word in FORMULAS), table
    page = Page(whole.read_text("utf-8"))
    assert page.effective == []
    assert any(name in "".join(page.text) for name in PAGES), "nothing hostile is on the page"
    with closing(sqlite3.connect(planted / "prefect" / "prefect.db")) as database:
        notes = [str(data) for (data,) in database.execute("SELECT data FROM artifact")]
    assert any("onerror" in note for note in notes), "nothing hostile is in a note"
    assert not [note for note in notes if re.search(r"<(img|script|svg)\b", note)]
    assert not [note for note in notes if re.search(r"(?<!\\)\]\(javascript", note)]


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
def test_the_report_on_hostile_names_runs_nothing_in_a_browser(whole, tmp_path):
    seen = text_of(whole.as_uri(), tmp_path / "profile")
    assert Page(seen).effective == []
    title = re.search(r"<title>(.*?)</title>", seen)
    assert title
    assert "OWNED" not in title[1]


def test_a_page_that_would_run_something_is_seen():
    """So that the two tests above can fail."""
    for name in PAGES[:3]:
        assert Page(f"<p>{name}</p>").effective, name
    for text in (
        '<a href="javascript:x">', '<p style="background:url(http://x)">', '<link href="http://x">',
        '<meta http-equiv="refresh" content="0;url=http://x">',
    ):  # fmt: skip
        assert Page(text).effective, text
    assert not Page('<a href="http://x">x</a><img src="data:image/png;base64,">').effective


@pytest.mark.parametrize("name", PATHS)
def test_labels_of_names_that_lead_elsewhere_are_refused(run, tmp_path, name):
    table = pd.DataFrame(0, index=[0], columns=["patientId", "x", "y", "width", "height", "Target"])
    table.assign(patientId=name).to_csv(tmp_path / LABELS_CSV, index=False)
    done = run("run", "--raw", tmp_path, "--by-image", "--until", "labels")
    assert done.returncode == 1, done.stdout
    assert "expected a patientId that is a plain file name" in done.stderr
    assert len(done.stderr.splitlines()) == 1, done.stderr


@pytest.mark.parametrize(
    "asked",
    [["--run", "../OWNED"], ["--run", "/OWNED"], ["--run", "OWNED/.."], ["--run", ""],
     ["--models", "../OWNED"], ["--until", "../labels"],
     ["--set", "training.weights=../../etc/passwd"], ["--set", "training.weights=/dev/zero"],
     ["--set", "../x=1"], ["--set", "shards.__class__=1"]],
)  # fmt: skip
def test_words_of_the_command_that_lead_elsewhere_are_refused(run, asked):
    done = run("run", *asked)
    assert done.returncode == 2, done.stdout
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("file", [PERSONS_CSV, "split.csv", OFFICIAL_MAPPING])
def test_a_refusal_of_hostile_names_is_one_line_that_steers_nothing(run, tmp_path, file):
    name, path = "\x1b]0;OWNED\x07\nError: forged\u202e", tmp_path / file
    if path.suffix == ".json":
        path.write_text(json.dumps([{"subset_img_id": name, "img_id": "00000001_000.png"}]))
    else:
        value = {"split.csv": "split", PERSONS_CSV: "person"}[file]
        pd.DataFrame({"patientId": [name], value: ["train"]}).to_csv(path, index=False)
    asked = "--split-file" if file == "split.csv" else "--persons"
    done = run("run", "--until", "split", asked, path, *LENIENT)
    assert done.returncode == 1, done.stderr
    assert ("forged" in done.stderr) == (file == "split.csv")  # a person map is not shown
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert not re.search(STEERING, done.stderr)
