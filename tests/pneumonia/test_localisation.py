import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score

from pneumonia.localisation import (
    CONTROL_SIDE,
    THRESHOLDS,
    box_mask,
    control_map,
    enlarge,
    pixel_centres,
    score,
)


def test_score_hand_computed():
    heat = np.array([[4.0, 2.0], [0.0, -1.0]], np.float32)
    mask = np.array([[True, False], [True, False]])
    told = score(heat, mask, np.array([0.5, 0.1]))
    assert told.pointing == 1
    # scaled: 1, 0.6 / 0.2, 0
    assert told.iou == pytest.approx([1 / 3, 2 / 3])
    assert told.dice == pytest.approx([2 / 4, 4 / 5])
    assert told.cnr == pytest.approx((2 - 0.5) / np.sqrt(4 + 2.25))
    assert told.auprc == pytest.approx((1 / 1 + 2 / 3) / 2)
    assert told.energy_in_boxes == pytest.approx(4 / 6)


@pytest.mark.parametrize("levels", [3, 1000])
def test_auprc_is_that_of_scikit_learn(levels):
    rng = np.random.default_rng(0)
    heat = (rng.integers(0, levels, (40, 30)) / levels).astype(np.float32)
    mask = box_mask(np.array([[3, 4, 10, 12]]), 40, 30)
    expected = average_precision_score(mask.ravel(), heat.ravel())
    assert score(heat, mask).auprc == pytest.approx(expected, abs=1e-12)


@given(st.integers(0, 1000), st.floats(0.1, 10), st.floats(-5, 5))
@settings(max_examples=30, deadline=None)
def test_stretching_and_shifting_the_map_changes_only_the_energy(seed, stretch, shift):
    rng = np.random.default_rng(seed)
    heat = rng.integers(0, 50, (12, 12)).astype(np.float32)
    mask = box_mask(np.array([[2, 2, 5, 6]]), 12, 12)
    one, other = score(heat, mask), score(heat * np.float32(stretch) + np.float32(shift), mask)
    assert other.pointing == one.pointing
    assert other.auprc == pytest.approx(one.auprc, abs=1e-6)
    assert other.cnr == pytest.approx(one.cnr, abs=1e-3)


def test_energy_after_min_max_scaling_would_be_another():
    # the document's example: 0.30 becomes 0.21
    heat = np.full((10, 10), -1.0, np.float32)
    heat[:2, :5] = 3.0
    heat[2:9, :] = 1.0
    mask = box_mask(np.array([[0, 0, 5, 2]]), 10, 10)
    assert score(heat, mask).energy_in_boxes == pytest.approx(0.3)
    scaled = (heat - heat.min()) / (heat.max() - heat.min())
    assert score(scaled, mask).energy_in_boxes == pytest.approx(0.21, abs=0.02)


def test_uniform_noise_scores_what_the_boxes_cover():
    rng = np.random.default_rng(0)
    mask = box_mask(np.array([[10, 10, 40, 30]]), 100, 100)
    told = [score(rng.random((100, 100), np.float32), mask) for _ in range(200)]
    assert np.mean([one.pointing for one in told]) == pytest.approx(0.12, abs=0.05)
    assert np.mean([one.auprc for one in told]) == pytest.approx(0.12, abs=0.005)
    assert np.mean([one.cnr for one in told]) == pytest.approx(0, abs=0.01)


@given(st.floats(0, 8), st.floats(0, 6), st.floats(1e-9, 12), st.floats(1e-9, 12))
def test_box_mask_holds_every_box_of_the_frame_however_small(x, y, width, height):
    width, height = min(width, 8 - x), min(height, 6 - y)
    mask = box_mask(np.array([[x, y, width, height]]), 6, 8)
    assert mask.any()
    rows, columns = np.nonzero(mask)
    assert max(abs(rows + 0.5 - (y + height / 2))) <= max(height, 1) / 2 + 1e-9
    assert max(abs(columns + 0.5 - (x + width / 2))) <= max(width, 1) / 2 + 1e-9


def test_box_mask_a_third_of_a_pixel_is_the_pixel_that_holds_it():
    mask = box_mask(np.array([[2.6, 1.0, 0.3, 0.3]]), 3, 4)
    assert np.argwhere(mask).tolist() == [[1, 2]]
    assert score(mask.astype(np.float32), mask).pointing == 1


def test_box_mask_of_whole_and_half_pixels_is_as_before():
    one = box_mask(np.array([[1.5, 0.0, 1.0, 1.0]]), 1, 4)  # centres at 1.5 and 2.5: the first
    assert one.tolist() == [[False, True, False, False]]


def test_perfect_map_of_few_cells_stays_below_one():
    mask = box_mask(np.array([[200, 300, 230, 310]]), 1024, 1024)
    for cells, ceiling in ((7, 0.75), (16, 0.9)):
        centres = pixel_centres(cells, 1024 / cells)
        coarse = enlarge(mask.astype(np.float32), centres, centres)
        back = pixel_centres(1024, cells / 1024)
        best = score(enlarge(coarse, back, back), mask).iou.max()
        assert 0.3 < best < ceiling
    assert score(mask.astype(np.float32), mask).iou.max() == 1


def test_constant_map_points_at_the_first_pixel_and_has_no_contrast():
    mask = box_mask(np.array([[0, 0, 2, 2]]), 4, 4)
    told = score(np.zeros((4, 4), np.float32), mask)
    assert told.pointing == 1
    assert np.isnan(told.cnr)
    assert np.isnan(told.energy_in_boxes)
    assert told.iou.max() == 0
    assert told.auprc == pytest.approx(0.25)


def test_boxes_over_the_whole_image_have_no_contrast():
    told = score(np.arange(16, dtype=np.float32).reshape(4, 4), np.ones((4, 4), bool))
    assert np.isnan(told.cnr)
    assert told.energy_in_boxes == 1


def test_score_without_a_box_is_rejected():
    with pytest.raises(ValueError, match="inside a box"):
        score(np.zeros((4, 4), np.float32), np.zeros((4, 4), bool))


def test_score_shapes_that_differ_are_rejected():
    with pytest.raises(ValueError, match="one shape"):
        score(np.zeros((4, 4), np.float32), np.ones((4, 5), bool))


@pytest.mark.parametrize("size", [(7, 7), (16, 8)])
def test_enlarge_is_torchs_bilinear(size):
    heat = np.random.default_rng(0).normal(size=size).astype(np.float32)
    ours = enlarge(heat, pixel_centres(96, size[0] / 96), pixel_centres(64, size[1] / 64))
    theirs = torch.nn.functional.interpolate(
        torch.tensor(heat)[None, None], (96, 64), mode="bilinear", align_corners=False
    )
    assert ours == pytest.approx(theirs[0, 0].numpy(), abs=1e-5)


def test_enlarge_leaves_the_padding_out():
    # a frame of 8 rows and 16 columns stored in a square of 8, so 2 rows of padding on each side
    stored = np.zeros((8, 8), np.float32)
    stored[2:6] = 1
    frame = enlarge(stored, pixel_centres(8, 0.5, 2.0), pixel_centres(16, 0.5))
    assert frame.shape == (8, 16)
    assert frame[1:-1].min() == 1


def test_control_map_is_the_share_of_covering_boxes():
    boxes = [np.array([[0.0, 0.0, 512.0, 1024.0]]), np.array([[0.0, 0.0, 50.0, 50.0]])]
    heat = control_map(boxes, np.array([[1024, 1024], [100, 100]]))
    half = CONTROL_SIDE // 2
    assert heat[:half, :half].min() == 1
    assert heat[half:, :half].max() == 0.5
    assert heat[:, half:].max() == 0


@pytest.mark.rsna
def test_control_map_on_the_challenge_reproduces_the_stated_row():
    if "PNEUMONIA_REAL_DATA" not in os.environ:
        pytest.skip("PNEUMONIA_REAL_DATA is not set: no boxes to read")
    rsna = Path(os.environ["PNEUMONIA_REAL_DATA"]) / "rsna"
    rows = pd.read_csv(rsna / "stage_2_train_labels.csv").query("Target == 1")
    side = 128  # of 1024: pointing moves by 0.005, the others by less than 0.001
    boxes = [
        group[["x", "y", "width", "height"]].to_numpy() * side / 1024
        for _, group in rows.groupby("patientId")
    ]
    assert len(boxes) == 6012
    order = np.random.default_rng(0).permutation(len(boxes))
    fit, tune, test = order[:3006], order[3006:3506], order[3506:]
    centres = pixel_centres(side, CONTROL_SIDE / side)
    control = control_map([boxes[i] for i in fit], np.full((len(fit), 2), side))
    heat = enlarge(control, centres, centres)
    told = {
        name: [score(heat, box_mask(boxes[i], side, side)) for i in chosen]
        for name, chosen in (("tune", tune), ("test", test))
    }
    best = int(np.argmax(np.mean([one.iou for one in told["tune"]], axis=0)))
    assert 0.1 < THRESHOLDS[best] < 0.9
    assert np.mean([one.pointing for one in told["test"]]) == pytest.approx(0.576, abs=0.03)
    assert np.mean([one.iou[best] for one in told["test"]]) == pytest.approx(0.293, abs=0.02)
    assert np.mean([one.dice[best] for one in told["test"]]) == pytest.approx(0.425, abs=0.02)
    assert np.mean([one.cnr for one in told["test"]]) == pytest.approx(1.39, abs=0.02)
    assert np.mean([one.auprc for one in told["test"]]) == pytest.approx(0.466, abs=0.02)
