"""The maps are exact, the scores are those of the boxes, the gallery is drawn by lot."""

import json

import numpy as np
import pandas as pd
import pytest
import torch
from shard_files import write_shard

from pneumonia import cam
from pneumonia.activation import class_activation_maps
from pneumonia.agreement import (
    by_group,
    choose_threshold,
    columns,
    compare_maps,
    repeatability,
)
from pneumonia.assessment import Side
from pneumonia.cam import (
    choose_gallery,
    compute_maps,
    make_cam,
)
from pneumonia.checkpoint import Checkpoint
from pneumonia.config import CamConfig, EvaluationConfig
from pneumonia.errors import StaleArtifactError
from pneumonia.localisation import MEASURES, THRESHOLDS, Scores, map_on_pixels
from pneumonia.metrics import OUTCOMES
from pneumonia.network import MODELS, build, normalise
from pneumonia.pool import ImagePool
from pneumonia.uncertainty import resample_people

SIDE = 64
CPU = {"accelerator": "cpu", "workers": 1}


def make_checkpoint(model="custom_cnn"):
    torch.manual_seed(0)
    network = build(model).eval()
    return Checkpoint(
        model=model, network=network, image_size=SIDE, crop_size=56, mean=0.449, std=0.226,
        fine_maps=False, epoch=1, val_loss=0.5, val_auroc=0.5, training={},
    )  # fmt: skip


@pytest.fixture(scope="module")
def pool(tmp_path_factory):
    """64 noisy images, each with a bright square at its box."""
    folder = tmp_path_factory.mktemp("pool")
    rng = np.random.default_rng(0)
    images = rng.integers(0, 90, (64, SIDE, SIDE)).astype(np.uint8)
    images[:, 16:40, 8:24] += 150
    write_shard(folder / "shard", images)
    table = pd.DataFrame(
        {"image_id": [f"i{n:02d}" for n in range(64)], "pool": "shard", "row": range(64)}
    )
    return ImagePool(folder, table)


@pytest.fixture(scope="module")
def tables(pool):
    """Studies and boxes of the pool, and the predictions of the untrained model."""
    image_ids = [f"i{n:02d}" for n in range(64)]
    studies = pd.DataFrame(
        {
            "image_id": image_ids,
            "patient_id": [f"p{n // 2:02d}" for n in range(64)],
            "split": ["train"] * 16 + ["val"] * 16 + ["test"] * 32,
            "target": [n % 2 == 0 for n in range(64)],
            "view": ["AP", "PA"] * 32,
            "rows": 256,
            "columns": 256,
            "scale": 0.25,
            "offset_x": 0.0,
            "offset_y": 0.0,
        }
    )
    positive = studies.loc[studies["target"], "image_id"]
    boxes = pd.DataFrame(
        {"image_id": positive, "x": 32.0, "y": 64.0, "width": 64.0, "height": 96.0}
    )
    _, logit = compute_maps(make_checkpoint(), pool, image_ids, **CPU)
    predictions = pd.DataFrame({"image_id": image_ids, "logit": logit})
    predictions["probability"] = 1 / (1 + np.exp(-logit))
    return studies, boxes, predictions


def run(pool, tables, output, n_images=8, **replaced):
    studies, boxes, predictions = (
        replaced.get(name, table)
        for name, table in zip(("studies", "boxes", "predictions"), tables, strict=True)
    )
    middle = float(predictions["probability"].median())
    decisions = {"operating_points": {"youden": {"threshold": middle, "rule": "test"}}}
    return make_cam(
        make_checkpoint(), pool, studies, boxes, predictions, decisions,
        CamConfig(n_images=n_images), EvaluationConfig(n_resamples=50), output,
        others=replaced.get("others", ()), **CPU,
    )  # fmt: skip


def test_class_activation_map_hand_computed():
    features = torch.tensor([[[[1.0, 2.0]], [[3.0, 4.0]]]])  # (1, 2, 1, 2)
    heat = class_activation_maps(features, torch.tensor([10.0, -1.0]))
    assert heat.tolist() == [[[7.0, 16.0]]]


@pytest.mark.parametrize("model", MODELS)
def test_mean_of_the_map_plus_bias_is_the_logit(model, pool):
    checkpoint = make_checkpoint(model)
    heats, logit = compute_maps(checkpoint, pool, ["i03", "i00", "i40"], **CPU)
    with torch.inference_mode():
        images = torch.from_numpy(pool.gather_ids(["i03", "i00", "i40"]))
        expected = checkpoint.network(normalise(images)).numpy()
    assert heats.shape[0] == 3
    assert logit == pytest.approx(expected, abs=1e-4)


def middle(weight):
    """Centroid (2,) of weights (rows, columns), pixel 0 at 0."""
    return [np.average(np.arange(len(w)), weights=w) for w in (weight.sum(1), weight.sum(0))]


@pytest.mark.parametrize("side", [256, 200])  # 200 is 6.25 strides of 32 and 12.5 of 16
@pytest.mark.parametrize("fine_maps", [False, True])
@pytest.mark.parametrize("model", MODELS)
def test_a_cell_of_the_map_is_drawn_where_the_network_looks(model, fine_maps, side):
    """A quarter of a cell off is allowed, for weights are random; tiles would be half a cell."""
    torch.manual_seed(0)
    network = build(model, fine_maps=fine_maps).eval()
    images = torch.randn(4, 1, side, side, requires_grad=True)
    heats = class_activation_maps(network.features(images), network.head.weight[0])
    row, column = heats.shape[1] // 2, heats.shape[2] // 2 - 1
    heats[:, row, column].sum().backward()
    looked = middle(images.grad.square().sum((0, 1)).numpy())
    cell = np.zeros(heats.shape[1:], np.float32)
    cell[row, column] = 1
    lattice = network.origin, network.stride
    drawn = middle(map_on_pixels(cell, lattice, (side, side)))
    np.testing.assert_allclose(drawn, looked, atol=network.stride / 4)
    # four times the pixels, 40 of padding above and 24 to the left left out
    scaled = middle(
        map_on_pixels(cell, lattice, (4 * side - 160, 4 * side - 96), 0.25, (40.0, 24.0))
    )
    assert scaled == pytest.approx([4 * (drawn[0] - 40) + 1.5, 4 * (drawn[1] - 24) + 1.5])


@pytest.mark.parametrize("stretched", [1, 4])
def test_make_cam_scores_and_draws_maps_where_the_network_looks(
    pool, tables, tmp_path, monkeypatch, stretched
):
    """A map of one hot cell points into a box around its pixel, and only there."""
    studies, boxes, predictions = tables
    studies = studies.assign(rows=SIDE * stretched, columns=SIDE * stretched, scale=1 / stretched)
    around = boxes.assign(x=34.0, y=18.0, width=4.0, height=4.0)  # pixel (19.5, 35.5): cell (1, 2)
    around[["x", "y", "width", "height"]] *= stretched
    drawn = []
    monkeypatch.setattr(cam, "cam_panel", lambda _image, heat, *_: drawn.append(heat) or b"")

    def hot(features, _weight):
        heat = torch.zeros(len(features), 4, 4)
        heat[:, 1, 2] = 1
        return heat

    monkeypatch.setattr(cam, "class_activation_maps", hot)
    logit = make_checkpoint().network.head.bias.item() + 1 / 16
    predictions = predictions.assign(logit=logit)
    told = run(pool, tables, tmp_path, 4, studies=studies, boxes=around, predictions=predictions)
    assert told["pointing"]["value"] == 1
    assert {np.unravel_index(heat.argmax(), heat.shape) for heat in drawn} == {(19, 35)}


def test_make_cam_writes_the_contract(pool, tables, tmp_path):
    told = run(pool, tables, tmp_path)
    assert told["n"] == 16
    for part in (told, told["constant_map"], told["difference"]):
        for name in MEASURES:
            assert set(part[name]) == {"value", "low", "high", "reason"}
            assert 0 <= told["defined"][name] <= told["n"]
    assert told["threshold"] in THRESHOLDS
    # every box is the same, so the control knows it
    assert told["constant_map"]["pointing"]["value"] == 1
    assert told["constant_map"]["auprc"]["value"] == pytest.approx(1, abs=0.02)
    assert told["difference"]["auprc"]["value"] <= 0
    assert [group["by"] for group in told["subgroups"]] == ["view", "boxes"]
    depths = ["head", "stage 4", "stage 3", "stage 2", "stage 1", "stem"]
    assert told["sanity"]["images"] == 16
    assert [layer["randomised"] for layer in told["sanity"]["layers"]] == depths
    assert all(-1 <= layer["ssim"] <= 1 for layer in told["sanity"]["layers"])
    assert told["sanity"]["passed"] in {True, False}
    assert told["repeatability"]["value"] is None
    assert told["repeatability"]["reason"] == "the maps are of one training"
    json.dumps(told, allow_nan=False)


def test_make_cam_draws_the_gallery(pool, tables, tmp_path):
    told = run(pool, tables, tmp_path)
    files = [panel["file"] for panel in told["panels"]]
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(files)
    for panel in told["panels"]:
        assert (panel["boxes"] > 0) == panel["outcome"].endswith(
            ("true positive", "false negative")
        )
    low, high = told["scale"]
    assert low < high


def test_make_cam_again_gives_the_same_bytes(pool, tables, tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    first.mkdir()
    second.mkdir()
    assert run(pool, tables, first) == run(pool, tables, second)
    for path in first.iterdir():
        assert path.read_bytes() == (second / path.name).read_bytes()


def test_make_cam_row_order_makes_no_difference(pool, tables, tmp_path):
    shuffled = {
        name: table.sample(frac=1, random_state=0)
        for name, table in zip(("studies", "boxes", "predictions"), tables, strict=True)
    }
    assert run(pool, tables, tmp_path, 0, **shuffled) == run(pool, tables, tmp_path, 0)


def test_make_cam_no_images_asked_for_draws_none(pool, tables, tmp_path):
    assert run(pool, tables, tmp_path, n_images=0)["panels"] == []
    assert not list(tmp_path.iterdir())


def test_make_cam_predictions_of_another_checkpoint_are_refused(pool, tables, tmp_path):
    other = tables[2].assign(logit=tables[2]["logit"] + 1)
    with pytest.raises(StaleArtifactError, match=r"got others for .* --refresh predictions"):
        run(pool, tables, tmp_path, predictions=other)


def test_make_cam_without_train_boxes_withholds_the_control(pool, tables, tmp_path):
    studies = tables[0][tables[0]["split"] != "train"]
    told = run(pool, tables, tmp_path, 0, studies=studies)
    assert told["auprc"]["value"] is not None
    for part in (told["constant_map"], told["difference"]):
        assert part["auprc"]["value"] is None
        assert part["auprc"]["reason"] == "no positive image in train to make the control of"


def test_make_cam_checks_sanity_on_one_image_a_person(pool, tables, tmp_path):
    studies = tables[0].assign(patient_id=[f"p{n // 8:02d}" for n in range(64)])
    assert run(pool, tables, tmp_path, 0, studies=studies)["sanity"]["images"] == 4


def test_make_cam_without_test_positives_has_no_sanity_to_tell(pool, tables, tmp_path):
    studies = tables[0][(tables[0]["split"] != "test") | ~tables[0]["target"]]
    told = run(pool, tables, tmp_path, 0, studies=studies)["sanity"]
    assert told["passed"] is None
    assert told["reason"] == "0 positive test images, at least 2 people's needed"


def test_gallery_is_an_equal_share_by_lot(tables):
    studies, _, predictions = tables
    test = studies[studies["split"] == "test"].merge(predictions, on="image_id")
    middle = float(test["probability"].median())
    gallery = choose_gallery(test, middle, 10)
    counts = gallery["outcome"].value_counts()
    assert counts.reindex(OUTCOMES).tolist() == [3, 3, 2, 2]
    again = choose_gallery(test.sample(frac=1, random_state=1), middle, 10)
    assert again["image_id"].tolist() == gallery["image_id"].tolist()
    called = gallery["probability"] >= middle
    assert (gallery["outcome"].str.endswith("positive") == called).all()


def draw_scores(rng, n):
    return [
        Scores(
            pointing=float(rng.random() < 0.5),
            iou=rng.random(len(THRESHOLDS)),
            dice=rng.random(len(THRESHOLDS)),
            cnr=rng.normal(),
            auprc=rng.random(),
            energy_in_boxes=float("nan") if rng.random() < 0.2 else rng.random(),
        )
        for _ in range(n)
    ]


@pytest.fixture
def measured():
    rng = np.random.default_rng(0)
    person = np.repeat(np.arange(20), 2)
    side = Side(np.ones(40, bool), person, resample_people(20, 100, 0))
    return side, *(columns(draw_scores(rng, 40), 30) for _ in range(2))


def test_model_control_and_difference_of_a_measure_are_over_the_same_images(measured):
    side, own, control = measured
    told = compare_maps(own, control, side)
    both = ~np.isnan(own["energy_in_boxes"] + control["energy_in_boxes"])
    assert 20 < both.sum() < 40
    assert told["defined"] == dict.fromkeys(MEASURES, 40) | {"energy_in_boxes": both.sum()}
    parts = {"own": told, "control": told["constant_map"], "difference": told["difference"]}
    for measure in MEASURES:
        value = {name: part[measure]["value"] for name, part in parts.items()}
        assert value["own"] - value["control"] == pytest.approx(value["difference"], abs=1e-12)
    assert told["energy_in_boxes"]["value"] == pytest.approx(own["energy_in_boxes"][both].mean())
    for part in parts.values():
        assert part["iou"]["low"] < part["iou"]["value"] < part["iou"]["high"]


def test_difference_of_a_map_to_itself_has_no_interval(measured):
    side, own, _ = measured
    same = compare_maps(own, own, side)["difference"]
    assert same["iou"]["value"] == 0
    assert same["iou"]["reason"].startswith("no interval: the same at both its ends")


def test_interval_counts_the_people_of_the_images_where_a_measure_is_defined(measured):
    side, own, control = measured
    few = {name: column.copy() for name, column in own.items()}
    few["cnr"][18:] = np.nan
    told = compare_maps(few, control, side)
    assert told["cnr"]["reason"] == "no interval: 9 to resample, at least 10 needed"
    assert told["iou"]["low"] is not None


def test_without_a_control_the_model_is_told_where_its_own_map_is_defined(measured):
    side, own, control = measured
    nowhere = {name: np.full_like(column, np.nan) for name, column in control.items()}
    told = compare_maps(own, nowhere, side, no_control="no box in train")
    energy = own["energy_in_boxes"]
    assert told["energy_in_boxes"]["value"] == pytest.approx(np.nanmean(energy))
    assert told["defined"]["energy_in_boxes"] == (~np.isnan(energy)).sum()
    assert told["difference"]["iou"]["reason"] == "no box in train"


def test_measure_that_is_nowhere_defined_says_so(measured):
    side, own, control = measured
    flat = own | {"cnr": np.full(40, np.nan)}
    assert compare_maps(flat, control, side)["cnr"]["reason"] == "defined in no image"


def test_maps_of_no_image_say_so(measured):
    side, own, control = measured
    nothing = np.zeros(40, bool)
    own, control = (
        {name: column[nothing] for name, column in values.items()} for values in (own, control)
    )
    told = compare_maps(own, control, side.part(nothing))
    assert told["iou"] == {"value": None, "low": None, "high": None, "reason": "no positive image"}


def test_subgroups_too_small_are_null_with_the_reason(measured):
    side, own, control = measured
    labels = ["AP"] * 31 + ["PA"] * 9
    groups = by_group({"view": labels}, own, control, side)
    assert groups[0]["iou"]["value"] == pytest.approx(own["iou"][:31].mean())
    assert (groups[0]["n"], groups[0]["defined"]["iou"]) == (31, 31)
    assert groups[1]["iou"]["value"] is None
    assert groups[1]["iou"]["reason"].startswith("too small: 9")


def test_threshold_has_the_largest_mean_iou():
    scores = draw_scores(np.random.default_rng(1), 5)
    best = np.mean([one.iou for one in scores], axis=0)
    assert best[choose_threshold(scores)] == best.max()


def test_threshold_without_images_is_rejected():
    with pytest.raises(ValueError, match="at least one positive image"):
        choose_threshold([])


def make_side(n):
    return Side(np.ones(n, bool), np.arange(n), resample_people(n, 200, 0))


def test_repeatability_of_the_same_maps_is_1():
    """Whatever their scale: a map is compared between its least and its largest value."""
    maps = np.random.default_rng(0).normal(size=(12, 7, 7))
    told = repeatability([maps, 3 * maps - 2, maps], make_side(12))
    assert told["value"] == pytest.approx(1.0)


def test_repeatability_is_the_mean_over_pairs_then_images():
    maps = np.random.default_rng(1).normal(size=(3, 12, 7, 7))
    pairs = [
        repeatability([maps[i], maps[j]], make_side(12))["value"]
        for i, j in ((0, 1), (0, 2), (1, 2))
    ]
    told = repeatability(list(maps), make_side(12))
    assert told["value"] == pytest.approx(np.mean(pairs))
    assert told["low"] < told["value"] < told["high"] < 0.5  # maps of noise are not alike


def test_repeatability_without_other_seeds_or_images_says_why():
    maps = np.zeros((2, 4, 4))
    assert repeatability([maps], make_side(2))["reason"] == "the maps are of one training"
    nothing = repeatability([maps[:0], maps[:0]], Side(np.ones(0, bool), np.arange(0), None))
    assert nothing["value"] is None
    assert nothing["reason"] == "no positive image"


def test_cam_of_several_seeds_tells_how_repeatable_it_is(pool, tables, tmp_path):
    other = make_checkpoint()
    torch.manual_seed(5)
    for weight in other.network.parameters():
        weight.data += 0.05 * torch.randn_like(weight)
    assert run(pool, tables, tmp_path, others=[other])["repeatability"]["value"] < 0.99
    same = run(pool, tables, tmp_path, others=[make_checkpoint()])
    assert same["repeatability"]["value"] == pytest.approx(1.0)
