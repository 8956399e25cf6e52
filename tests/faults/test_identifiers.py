"""What identifies a person in the input is in nothing that the pipeline writes or says."""

import os

import pandas as pd
import pydicom
import pytest
from harness import SETTINGS

from pneumonia.inventory import list_dicom
from pneumonia.people import PATIENT_KEY
from pneumonia.persons import PERSONS_CSV
from pneumonia.simulate import simulate

pytestmark = pytest.mark.e2e

HEADER = {
    "PatientName": "Zwetschgenbaum^Adalbert",
    "PatientID": "HOSPNUMBER-4711-0815",
    "PatientBirthDate": "19370311",
    "AccessionNumber": "ACC-90210-XQ",
    "StudyInstanceUID": "1.2.999.31337.1.1",
    "SeriesInstanceUID": "1.2.999.31337.1.2",
    "InstitutionName": "Quittenklinik Nord",
    "ReferringPhysicianName": "Holunder^Hedwig",
}
PLANTED = [
    "zwetschgenbaum", "adalbert", "hospnumber", "4711-0815", "19370311", "90210", "1.2.999.31337",
    "quittenklinik", "holunder",
]  # fmt: skip


def plant(raw):
    """Identifiers in every header and map; some files are damaged in ways that are told apart."""
    for number, entry in enumerate(list_dicom([raw])):
        film = pydicom.dcmread(entry.path)
        for name, value in HEADER.items():
            setattr(film, name, value)
        if number == 0:
            film.PhotometricInterpretation = "RGB"
        elif number == 1:
            film.BodyPartExamined = "FOOT"
        film.save_as(entry.path)
        content = entry.path.read_bytes()
        if number == 2:
            entry.path.write_bytes(content[: len(content) // 2])
        elif number == 3:
            entry.path.write_bytes(b"HOSPNUMBER-4711-0815 Zwetschgenbaum")
        elif number == 4:
            entry.path.write_bytes(content[:300] + b"\xff\xff" + content[302:])
    persons = pd.read_csv(raw / PERSONS_CSV, dtype="str")
    persons["person"] = "HOSPNUMBER-4711-0815 Zwetschgenbaum " + persons["person"]
    persons.to_csv(raw / PERSONS_CSV, index=False)
    return persons


def broken_maps(persons, folder):
    """Person maps that are refused, each with a name where the fault is."""
    twice = pd.concat([persons, persons.head(1).assign(person="HOSPNUMBER other")])
    maps = {
        "two persons": twice,
        "space": persons.assign(person=persons["person"] + " "),
        "nobody": persons.assign(person=["", *persons["person"][1:]]),
        "no film": persons.rename(columns={"person": "nih_image"}),
        "other images": persons.assign(patientId="x" + persons["patientId"]),
        "no header": persons.rename(columns={"person": "HOSPNUMBER-4711-0815", "patientId": "a"}),
        "same twice": persons.assign(again="").rename(columns={"again": "person"}),
        "few": persons.head(20),
        "interchanged": persons.rename(columns={"patientId": "person", "person": "patientId"}),
    }
    for name, table in maps.items():
        path = folder / f"{name.replace(' ', '_')}.csv"
        table.to_csv(path, index=False)
        yield path
    mapping = folder / "mapping.json"
    mapping.write_text('[{"subset_img_id": "a", "img_id": "HOSPNUMBER-4711-0815.png"}]')
    yield mapping
    torn = folder / "torn.json"
    torn.write_text('[{"subset_img_id": "a", "HOSPNUMBER-4711-0815": "Zwetschgenbaum"}]')
    yield torn


def found_in(text, where):
    return [f"{name} in {where}" for name in PLANTED if name in text.lower()]


def found_below(folder):
    """Where a file's name or bytes, or what a table holds once decoded, names somebody."""
    found = []
    for path in sorted(folder.rglob("*")):
        found += found_in(path.name, "a name")
        if path.is_file():
            found += found_in(path.read_bytes().decode("latin-1"), path.name)
        if path.is_file() and path.suffix == ".parquet":
            found += found_in(pd.read_parquet(path).to_csv(), f"{path.name}, decoded")
    return found


def test_planted_identifiers_are_found_where_they_were_planted(tmp_path):
    simulate(tmp_path / "raw", 20, 1)
    plant(tmp_path / "raw")
    told = found_below(tmp_path / "raw")
    assert {name for name in PLANTED if any(line.startswith(name) for line in told)} == {*PLANTED}


def test_no_planted_identifier_is_in_anything_that_a_run_leaves(command, tmp_path):
    raw, workspace, home = (tmp_path / name for name in ("raw", "workspace", "prefect"))
    simulate(raw, 160, 1)
    persons = plant(raw)
    key = "a secret that no file may hold"
    environment = {**os.environ, "PREFECT_HOME": str(home), PATIENT_KEY: key}
    environment.pop("PREFECT_API_URL", None)  # of a server that other tests share
    asked = ["run", "--raw", raw, "--workspace", workspace, *SETTINGS]
    asked += ["--set", "shards.max_quarantined=0.2"]
    done = command(*asked, env=environment)
    assert done.returncode == 0, done.stderr
    told = [done.stdout + done.stderr]
    assert len(list(workspace.glob("report/*/report.html"))) == 1
    quarantine = pd.read_parquet(next(workspace.glob("shards/*/quarantine.parquet")))
    assert {"colour", "body_part", "truncated", "not_dicom"} <= {*quarantine["reason"]}
    maps = tmp_path / "maps"
    maps.mkdir()
    for path in broken_maps(persons, maps):
        done = command(*asked, "--until", "split", "--persons", path, env=environment)
        assert done.returncode in {1, 2}, path.name
        told.append(done.stdout + done.stderr)
    database = list(home.glob("prefect.db*"))
    assert database, "Prefect's database is elsewhere, so nothing was looked at"
    assert b"custom_cnn" in b"".join(path.read_bytes() for path in database)
    assert not [line for text in told for line in found_in(text, "the output")]
    assert not found_below(workspace)
    assert not found_below(home)
    files = [path for folder in (workspace, home) for path in folder.rglob("*") if path.is_file()]
    assert not [path for path in files if key.encode() in path.read_bytes()]
    assert key not in "".join(told)
    split = next(workspace.glob("split/*/manifest.json")).read_text("utf-8")
    assert '"patient_key":"' in split
