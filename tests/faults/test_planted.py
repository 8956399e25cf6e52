"""Names that would be paths, commands, formulas or pages, planted in all input: none has effect."""

import csv
import html.parser
import os
import re
import sqlite3
from contextlib import closing

import pandas as pd
import pydicom
import pytest
from browser import CHROMIUM, text_of
from harness import SETTINGS

from pneumonia.config import IMAGES_FOLDER
from pneumonia.csv_files import unquoted
from pneumonia.labels import CLASSES_CSV, LABELS_CSV
from pneumonia.persons import PERSONS_CSV
from pneumonia.simulate import simulate

pytestmark = pytest.mark.e2e

FORMULAS = ["=1+1;", "+1+1;", "-1+1;", "@SUM(1)"]
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
HIDDEN = ["....", "..\\..\\OWNED\\", "OWNED\n", "\x1b]0;OWNED\x07", "\u202egnp.exe"]
"""Each can be a file's name, and is no image's."""
PATHS = ["../../OWNED", "/OWNED", "..", "OWNED\0", "..\\OWNED"]
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


class Page(html.parser.HTMLParser):
    """What of a page a browser would run or fetch."""

    def __init__(self, text):
        super().__init__()
        self.effective, self.text = [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        for name, value in attrs:
            fetched = name in {"src", "href", "action", "data"} and not (value or "").startswith(
                ("data:image/", "data:,", "#", "http")
            )
            if name.startswith("on") or fetched:
                self.effective.append(f"<{tag} {name}={value}>")
        if tag in {"script", "iframe", "object", "embed", "form", "base", "meta"}:
            self.effective += [f"<{tag}>"] if tag != "meta" else []

    def handle_data(self, data):
        self.text.append(data)


def cells(path):
    with path.open(encoding="utf-8", newline="") as file:
        return [cell for row in csv.reader(file) for cell in row]


def formulas(paths):
    """Cells that a spreadsheet would take for a formula; a number is none."""
    return [
        cell
        for path in paths
        for cell in cells(path)
        if re.match(r"[=+\-@\t\r\n]", cell) and not re.fullmatch(r"[+-]?[\d.]+(e[+-]?\d+)?", cell)
    ]


def around(folder, *inner):
    """Every file and folder of `folder` with its size and time, less those that a run may write."""
    return {
        path: (path.lstat().st_size, path.lstat().st_mtime_ns)
        for path in folder.rglob("*")
        if not any(path.is_relative_to(each) for each in inner) and not path.is_dir()
    }


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    """A folder with hostile raw data, an empty one to run in, and what is made of them."""
    folder = tmp_path_factory.mktemp("planted")
    plant(folder / "raw")
    (folder / "here").mkdir()
    return folder


@pytest.fixture
def run(planted, command):
    """`pneumonia` in an empty folder with a Prefect of its own; nothing else there may change."""
    environment = {**os.environ, "PREFECT_HOME": str(planted / "prefect")}
    environment.pop("PREFECT_API_URL", None)
    asked = ["--raw", planted / "raw", "--workspace", planted / "workspace"]
    own = planted / "workspace", planted / "prefect", planted / "here" / "predictions.csv"

    def call(name, *more):
        before = around(planted, *own)
        done = command(
            name, *(asked if name == "run" else asked[2:]), *more,
            env=environment, cwd=planted / "here",
        )  # fmt: skip
        assert around(planted, *own) == before
        return done

    return call


def test_hostile_names_go_through_a_whole_run_and_none_has_effect(planted, run):
    workspace, predicted = planted / "workspace", planted / "here" / "predictions.csv"
    done = run("run", *SETTINGS, "--set", "shards.max_quarantined=1")
    assert done.returncode == 0, done.stderr
    assert not re.search(r"[\x00-\x09\x0b-\x1f\u202e]", done.stdout + done.stderr)
    done = run("predict", "--model", "custom_cnn", "--out", predicted, planted / "raw")
    assert done.returncode == 0, done.stderr
    split = next(workspace.glob("split/*/split.csv"))
    assert not formulas([split, predicted])
    for table in (split, predicted):
        names = unquoted(pd.read_csv(table, dtype="str").iloc[:, 0])
        assert all(names.str.contains(word, regex=False).any() for word in FORMULAS), table
    page = Page(next(workspace.glob("report/*/report.html")).read_text("utf-8"))
    assert page.effective == []
    assert any(name in "".join(page.text) for name in PAGES), "nothing hostile is on the page"
    with closing(sqlite3.connect(planted / "prefect" / "prefect.db")) as database:
        notes = [str(data) for (data,) in database.execute("SELECT data FROM artifact")]
    assert any("onerror" in note for note in notes), "nothing hostile is in a note"
    assert not [note for note in notes if re.search(r"<(img|script|svg)\b", note)]
    assert not [note for note in notes if re.search(r"(?<!\\)\]\(javascript", note)]


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
def test_the_report_on_hostile_names_runs_nothing_in_a_browser(planted, tmp_path):
    report = next((planted / "workspace").glob("report/*/report.html"))
    seen = text_of(report.as_uri(), tmp_path / "profile")
    assert Page(seen).effective == []
    title = re.search(r"<title>(.*?)</title>", seen)
    assert title
    assert "OWNED" not in title[1]


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
