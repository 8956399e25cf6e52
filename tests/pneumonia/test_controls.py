import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from pneumonia.controls import joint_log_odds, metadata_log_odds, plausible_age, spacing_values


def test_metadata_only_learns_the_view(studies):
    log_odds = metadata_log_odds(studies)
    test = (studies["split"] == "test").to_numpy()
    area = roc_auc_score(studies["target"][test], log_odds[test])
    assert 0.6 < area < 0.75


def test_metadata_only_does_not_look_at_test_labels(studies):
    changed = studies.copy()
    held_out = changed["split"] != "train"
    changed.loc[held_out, "target"] = ~changed.loc[held_out, "target"]
    assert (metadata_log_odds(changed) == metadata_log_odds(studies)).all()


def test_metadata_only_row_order_makes_no_difference(studies):
    log_odds = metadata_log_odds(studies)
    backwards = metadata_log_odds(studies[::-1].reset_index(drop=True))
    assert backwards[::-1] == pytest.approx(log_odds, abs=1e-6)


def test_metadata_only_without_header_fields_knows_only_the_prevalence(studies):
    bare = studies.assign(view=None, sex=None, age=np.nan, spacing=np.nan)
    log_odds = metadata_log_odds(bare)
    train = bare[bare["split"] == "train"]["target"].mean()
    assert log_odds == pytest.approx(np.full(len(bare), np.log(train / (1 - train))))


def test_metadata_only_unseen_value_is_scored(studies):
    test = studies["split"] == "test"
    odd = studies.assign(view=studies["view"].mask(test, "LATERAL"))
    assert np.isfinite(metadata_log_odds(odd)).all()


def test_metadata_only_without_train_rows_is_none(studies):
    assert metadata_log_odds(studies[studies["split"] == "test"]) is None


def test_plausible_age_typing_errors_are_missing():
    ages = plausible_age(pd.Series([0.0, 59.0, 120.0, 148.0, -1.0, None]))
    assert np.isnan(ages).tolist() == [False, False, False, True, True, True]


def test_spacing_values_near_equal_spacings_are_one():
    spacing = pd.Series([0.194311, 0.194314, 0.143, None])
    assert spacing_values(spacing).tolist() == ["0.194 mm", "0.194 mm", "0.143 mm", None]


def test_joint_model_weighs_the_better_column_more():
    rng = np.random.default_rng(0)
    target = rng.random(2000) < 0.5
    good, poor = 2.0 * target + rng.normal(size=2000), 0.2 * target + rng.normal(size=2000)
    fit = np.arange(2000) < 1000
    joint = joint_log_odds([poor, good], target, fit)
    assert roc_auc_score(target[~fit], joint[~fit]) > roc_auc_score(target[~fit], poor[~fit])
    assert np.corrcoef(joint, good)[0, 1] > 0.95


@pytest.mark.rsna
def test_metadata_only_on_the_challenge_reaches_the_stated_auroc():
    if "PNEUMONIA_REAL_DATA" not in os.environ:
        pytest.skip("PNEUMONIA_REAL_DATA is not set: no label and header tables to read")
    rsna = Path(os.environ["PNEUMONIA_REAL_DATA"]) / "rsna"
    headers = pd.read_csv(rsna / "stage_2_train_images_dicom_headers.csv")
    headers = headers.rename(
        columns={
            "PatientID": "image_id",
            "ViewPosition": "view",
            "PatientSex": "sex",
            "PatientAge": "age",
            "PixelSpacing": "spacing",
        }
    )
    labels = pd.read_csv(rsna / "stage_2_train_labels.csv").groupby("patientId")["Target"].max()
    match = pd.read_csv(rsna / "rsna_to_nih_match.csv")
    match = match[match["match_mse"] < 10].set_index("patientId")["nih_image"]
    table = headers.assign(
        target=headers["image_id"].map(labels) == 1,
        person=headers["image_id"].map(match.str.partition("_")[0]).fillna(headers["image_id"]),
    )
    people = table["person"].unique()
    areas = []
    half = dict(zip(people, np.random.default_rng(0).random(len(people)) < 0.5, strict=True))
    for side in (True, False):  # each half of the people tested once
        tested = (table["person"].map(half) == side).to_numpy()
        log_odds = metadata_log_odds(table.assign(split=np.where(tested, "test", "train")))
        areas.append(roc_auc_score(table["target"][tested], log_odds[tested]))
    assert np.mean(areas) == pytest.approx(0.72, abs=0.01)
