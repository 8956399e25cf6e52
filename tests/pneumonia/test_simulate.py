import hashlib
import json
import uuid
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pandas as pd
import pydicom
import pytest

from pneumonia import simulate as module
from pneumonia.config import IMAGES_FOLDER, SplitConfig
from pneumonia.errors import ConfigError
from pneumonia.labels import CLASSES_CSV, LABELS_CSV, read_labels
from pneumonia.persons import PERSONS_CSV, find_persons, read_persons
from pneumonia.simulate import MARKER, simulate
from pneumonia.split import make_split

N_IMAGES = 24


@pytest.fixture(scope="module")
def standing(tmp_path_factory):
    """A finished data set; tests only read it."""
    folder = tmp_path_factory.mktemp("standing") / "deep" / "raw"
    return folder, simulate(folder, N_IMAGES, 3)


@pytest.fixture(scope="module")
def large():
    """The plan of a large data set, a row per film: what needs no pixels is counted here."""
    studies = module._plan(6000, 1)
    frame = pd.DataFrame([vars(study) for study in studies])
    return frame.assign(
        n_boxes=frame["opacities"].map(len),
        positive=frame["label"] == "Lung Opacity",
        is_ap=frame["view"] == "AP",
    )


def contents(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def stamps(folder):
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*")}


def test_simulate_has_the_challenge_layout_and_nothing_else(standing):
    folder, facts = standing
    images = {f"{IMAGES_FOLDER}/{image_id}.dcm" for image_id in read_labels(folder).labels.image_id}
    assert set(contents(folder)) == images | {LABELS_CSV, CLASSES_CSV, PERSONS_CSV, MARKER}
    assert len(images) == N_IMAGES
    assert json.loads((folder / MARKER).read_text()) == facts


def test_simulate_tables_agree_with_the_facts_and_each_other(standing):
    folder, facts = standing
    tables = read_labels(folder)
    assert not tables.oddities
    assert tables.facts() == {name: facts[name] for name in ("images", "positives", "boxes")}
    classes = pd.read_csv(folder / CLASSES_CSV)
    labels = pd.read_csv(folder / LABELS_CSV)
    assert classes["patientId"].tolist() == labels["patientId"].tolist()  # a row per box in both
    assert (labels.loc[labels["Target"] == 0, ["x", "y", "width", "height"]].isna()).all(axis=None)
    persons = read_persons(find_persons(folder), 10.0)
    assert persons["image_id"].tolist() == tables.labels["image_id"].tolist()
    assert persons["person"].nunique() == facts["people"] < N_IMAGES


def test_simulate_files_say_what_the_plan_says(standing):
    folder, _ = standing
    for study in module._plan(N_IMAGES, 3):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # the age of `59`
            dataset = pydicom.dcmread(folder / IMAGES_FOLDER / study.file_name)
            age = dataset.PatientAge
        assert dataset.PatientID == study.image_id == str(uuid.UUID(study.image_id))
        assert (dataset.ViewPosition, dataset.PatientSex) == (study.view, study.sex)
        assert (age, dataset.PixelSpacing[0]) == (str(study.age), study.spacing)
    assert dataset.pixel_array.shape == (1024, 1024)


def test_simulate_same_arguments_give_the_same_bytes(standing, tmp_path):
    folder, facts = standing
    assert simulate(tmp_path / "again", N_IMAGES, 3) == facts
    assert contents(tmp_path / "again") == contents(folder)


def test_simulate_this_version_still_gives_the_data_set_it_gave(standing):
    """Another data set needs another `VERSION`: raise it together with these figures.

    Means and scatter rather than bytes: a processor may round some pixels by one grey level,
    while 1 % of an opacity's contrast moves a mean by more than is allowed.
    """
    folder, facts = standing
    names = (LABELS_CSV, CLASSES_CSV, PERSONS_CSV)
    tables = hashlib.sha256(b"".join((folder / name).read_bytes() for name in names)).hexdigest()
    paths = sorted((folder / IMAGES_FOLDER).iterdir())
    films = np.stack([pydicom.dcmread(path).pixel_array for path in paths])
    tiles = films.reshape(N_IMAGES, 4, 256, 4, 256).mean((0, 2, 4), dtype=np.float64)
    assert (facts["version"], tables[:16]) == (2, "4c8cc467e159a3c0")
    assert tiles == pytest.approx(
        np.array(
            [
                [63.6280, 99.5007, 98.7512, 63.9302],
                [102.9272, 90.1248, 94.0525, 102.0724],
                [105.8518, 95.9243, 134.7574, 106.9554],
                [138.7632, 153.2582, 160.1070, 137.9301],
            ]
        ),
        abs=0.002,
    )
    assert films.std(dtype=np.float64) == pytest.approx(57.2519, abs=0.002)


def test_simulate_another_seed_gives_other_images(tmp_path, standing):
    simulate(tmp_path, 3, 4)
    assert not set(contents(tmp_path / IMAGES_FOLDER)) & set(contents(standing[0] / IMAGES_FOLDER))


def test_simulate_standing_data_set_is_left_alone(standing):
    folder, facts = standing
    before = stamps(folder)
    assert simulate(folder, N_IMAGES, 3) == facts
    assert stamps(folder) == before


def test_simulate_what_a_user_changed_in_a_finished_data_set_stays(tmp_path):
    simulate(tmp_path, 3, 0)
    (tmp_path / LABELS_CSV).write_text("patientId,x,y,width,height,Target\n")
    next((tmp_path / IMAGES_FOLDER).iterdir()).unlink()
    before = stamps(tmp_path)
    simulate(tmp_path, 3, 0)
    assert stamps(tmp_path) == before


def test_simulate_interrupted_is_finished_to_the_same_bytes(tmp_path, monkeypatch):
    simulate(tmp_path / "whole", 6, 0)
    written = []

    def write_until_killed(path, content, write=module._write):
        if len(written) == 4:
            path.with_name(f".{path.name}.partial").write_bytes(content[:10])
            raise KeyboardInterrupt
        written.append(path)
        write(path, content)

    with monkeypatch.context() as patch:
        patch.setattr(module, "_write", write_until_killed)
        with pytest.raises(KeyboardInterrupt):
            simulate(tmp_path / "torn", 6, 0)
    kept = {path: path.stat().st_mtime_ns for path in written if path.suffix == ".dcm"}
    simulate(tmp_path / "torn", 6, 0)
    assert len(kept) == 3
    assert all(path.stat().st_mtime_ns == stamp for path, stamp in kept.items())
    assert contents(tmp_path / "torn") == contents(tmp_path / "whole")


def test_simulate_two_at_once_make_one_data_set(tmp_path):
    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(lambda _: simulate(tmp_path / "raw", 6, 0), range(2))
    assert first == second
    simulate(tmp_path / "alone", 6, 0)
    assert contents(tmp_path / "raw") == contents(tmp_path / "alone")


@pytest.mark.parametrize(("n_images", "seed"), [(0, 0), (-3, 0), (5, -1)])
def test_simulate_impossible_request_is_refused(tmp_path, n_images, seed):
    with pytest.raises(ConfigError) as caught:
        simulate(tmp_path, n_images, seed)
    assert str(caught.value) == (
        f"simulate: expected at least 1 image and a seed of at least 0, got {n_images} and {seed}."
    )


def test_simulate_another_data_set_in_the_folder_is_refused(standing):
    folder, _ = standing
    before = stamps(folder)
    with pytest.raises(ConfigError) as caught:
        simulate(folder, N_IMAGES, 4)
    assert str(caught.value) == (
        f"simulate: {folder}: expected a folder for 24 images of seed 4 (version 2), got one of "
        "24 images of seed 3 (version 2). Choose another, or delete it first."
    )
    assert stamps(folder) == before


@pytest.mark.parametrize(
    ("name", "content"),
    [("notes.txt", "mine"), (MARKER, "torn {"), (MARKER, "[]"), (MARKER, '{"version": 0}')],
)
def test_simulate_folder_with_other_content_is_refused(tmp_path, name, content):
    (tmp_path / name).write_text(content)
    with pytest.raises(ConfigError, match="expected an empty or a new folder, got one with other"):
        simulate(tmp_path, 3, 0)
    assert contents(tmp_path) == {name: content.encode()}


def test_simulate_file_in_place_of_the_folder_is_refused(tmp_path):
    (tmp_path / "raw").touch()
    for place in (tmp_path / "raw", tmp_path / "raw" / "inner"):
        with pytest.raises(ConfigError, match=r"expected a folder, got a file\. Choose another"):
            simulate(place, 3, 0)


def test_plan_rates_are_the_challenges(large):
    assert large["is_ap"].mean() == pytest.approx(0.456, abs=0.001)
    assert large.groupby("view")["positive"].mean().to_dict() == pytest.approx(
        {"AP": 0.383, "PA": 0.093}, abs=0.001
    )
    assert large["positive"].mean() == pytest.approx(0.225, abs=0.001)
    negatives = large.loc[~large["positive"], "label"].value_counts(normalize=True)
    assert negatives["Normal"] == pytest.approx(8851 / 20672, abs=0.01)


def test_plan_view_alone_has_the_challenges_auroc(large):
    sensitivity = large.loc[large["positive"], "is_ap"].mean()
    specificity = 1 - large.loc[~large["positive"], "is_ap"].mean()
    assert (sensitivity + specificity) / 2 == pytest.approx(0.706, abs=0.005)


def test_plan_people_have_several_images_with_differing_labels(large):
    by_person = large.groupby("person")["positive"]
    images, rate = by_person.size(), by_person.mean()
    assert images.mean() == pytest.approx(2.33, abs=0.15)
    assert (images == 1).mean() == pytest.approx(0.62, abs=0.02)
    several = rate[images > 1]
    assert several.between(0.001, 0.999).mean() == pytest.approx(0.40, abs=0.08)
    assert (large.groupby("person")[["sex"]].nunique() == 1).all(axis=None)


def test_plan_boxes_are_one_to_four_on_positives_alone(large):
    assert (large["n_boxes"] > 0).equals(large["positive"])
    assert sorted(large.loc[large["positive"], "n_boxes"].unique()) == [1, 2, 3, 4]


def test_plan_ages_are_odd_in_a_few(large):
    odd = large["age"] >= 148
    assert odd.sum() == 15
    assert large.loc[odd, "age"].max() <= 155
    assert large.loc[~odd, "age"].between(1, 95).all()
    assert (large["age"] < 18).sum() > 100


def test_plan_spacing_betrays_the_device(large):
    rate = large.groupby("spacing")["positive"].mean()
    assert rate[0.143] < 0.12
    assert rate[0.139] > 0.25


def test_plan_findings_mark_the_harder_negatives(large):
    n_findings = large["findings"].map(len)
    assert (n_findings[large["label"] == "Normal"] == 0).all()
    assert (n_findings[large["label"] == "No Lung Opacity / Not Normal"] > 0).all()
    assert 0.2 < (n_findings[large["positive"]] > 0).mean() < 0.8


def test_plan_image_ids_do_not_tell_people_apart(large):
    assert large["image_id"].is_unique
    order = np.argsort(large["image_id"].to_numpy())
    assert abs(np.corrcoef(order, large["person"])[0, 1]) < 0.05


@pytest.mark.parametrize("seed", range(4))
def test_plan_default_split_of_800_images_has_both_classes_on_every_side(seed):
    studies = module._plan(800, seed)
    frame = pd.DataFrame([vars(study) for study in studies])
    labels = frame[["image_id"]].assign(target=frame["label"] == "Lung Opacity")
    labels["class"] = frame["label"]
    columns = ["rows", "columns", "scale", "offset_x", "offset_y"]
    images = frame[["image_id", "view", "sex", "age", "spacing"]].assign(
        **dict.fromkeys(columns, 1024)
    )
    persons = frame[["image_id"]].assign(person=frame["person"].astype(str))
    boxes = pd.DataFrame(
        [(study.image_id, *cloud.box()) for study in studies for cloud in study.opacities],
        columns=["image_id", "x", "y", "width", "height"],
    )
    split = make_split(
        labels, boxes, images, persons=persons, split_file=None, config=SplitConfig()
    )
    assert split.facts["boxes_checked"] == len(boxes)
    assert all(5 <= side["positives"] < side["images"] for side in split.facts["sides"].values())
