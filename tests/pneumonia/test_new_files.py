import os

import numpy as np
import pytest
import torch

from pneumonia import network
from pneumonia.calibration import Calibration
from pneumonia.checkpoint import Checkpoint
from pneumonia.config import ShardsConfig
from pneumonia.new_files import COLUMNS, predict_files
from pneumonia.predictions import logits_of
from pneumonia.shards import convert_files
from pneumonia.simulate import simulate

SETTINGS = ShardsConfig(image_size=64)
DECISIONS = {
    "calibration": {"a": 2.0, "b": 0.3, "rule": "of this test"},
    "operating_points": {"youden": {"threshold": 0.5, "rule": "of this test"}},
}


@pytest.fixture(scope="module")
def trained():
    torch.manual_seed(0)
    model = network.build("custom_cnn").eval()
    return Checkpoint(
        "custom_cnn", model, 64, 56, network.MEAN, network.STD, False, 1, 0.5, 0.8, {}
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Eighteen DICOM files, more than a batch, and a broken one in the midst."""
    out = tmp_path_factory.mktemp("raw")
    simulate(out / "raw", 18, seed=0)
    images = out / "raw" / "stage_2_train_images"
    (images / "8-broken.dcm").write_bytes(b"no DICOM file")
    return images


@pytest.fixture(scope="module")
def table(trained, folder):
    return predict(trained, [folder])


def predict(trained, paths, shards=SETTINGS):
    return predict_files(
        trained,
        paths,
        DECISIONS,
        shards=shards,
        operating_point="youden",
        accelerator="cpu",
        workers=1,
    )


def test_predict_files_gives_a_row_per_file(table, folder):
    assert tuple(table.columns) == COLUMNS
    assert set(table["image_id"]) == {path.stem for path in folder.glob("*.dcm")}
    assert len(table) == 19


def test_predict_files_is_the_pools_way(table, trained, folder):
    """The same conversion, network, calibration and threshold."""
    read = table[table["reason"].isna()]
    images = {path.stem: image for path, image, _ in convert_files([folder], SETTINGS)}
    stack = [np.stack([images[name]]) for name in read["image_id"]]
    logit = logits_of(trained, stack, accelerator="cpu", workers=1)
    assert np.array_equal(read["logit"], logit)
    probability = Calibration(**DECISIONS["calibration"]).probability(logit)
    assert np.array_equal(read["probability"], probability)
    assert np.array_equal(read["positive"].astype(bool), probability >= 0.5)


def test_predict_files_refused_file_has_only_its_reason(table):
    row = table[table["image_id"] == "8-broken"].iloc[0]
    assert ":" in row["reason"]
    assert row[["logit", "probability", "positive"]].isna().all()


def test_predict_files_name_that_is_no_text_costs_one_row_only(trained, folder, tmp_path):
    good = next(path for path in sorted(folder.iterdir()) if path.stem != "8-broken")
    (tmp_path / good.name).write_bytes(good.read_bytes())
    (tmp_path / os.fsdecode(b"bad-\xff.dcm")).write_bytes(good.read_bytes())
    table = predict(trained, [tmp_path])
    table.to_csv(tmp_path / "out.csv", index=False)
    table.to_parquet(tmp_path / "out.parquet")
    row = table.set_index("image_id").loc[r"bad-\udcff"]
    assert row["file"] == rf"{tmp_path}/bad-\udcff.dcm"
    assert row["reason"] == "name: The file's name is not UTF-8. Rename it."
    assert table["probability"].notna().sum() == 1


def test_predict_files_takes_the_models_image_size(trained, folder, table):
    other = predict(trained, [folder], ShardsConfig(image_size=256))
    assert other.equals(table)


def test_predict_files_none_readable(trained, folder):
    only = predict(trained, [folder / "8-broken.dcm"])
    assert only["probability"].isna().all()
    assert len(only) == 1
