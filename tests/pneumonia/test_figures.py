import io
import re
import struct
from concurrent.futures import ThreadPoolExecutor
from xml.etree import ElementTree

import numpy as np
import pytest
from matplotlib.textpath import TextPath

from pneumonia.figures import (
    Interval,
    calibration_curves,
    cam_panel,
    decision_curves,
    forest,
    histogram,
    image_png,
    learning_curves,
    precision_recall_curves,
    roc_curves,
)

X = np.linspace(0, 1, 20)
GROUPS = {
    "view": [Interval("AP", 0.8, 0.7, 0.9), Interval("PA", 0.7, None, None)],
    "age": [Interval("0-17", None, None, None, "too small")],
}
CURVES = {
    "learning": lambda: learning_curves(
        {"m": {"train": (X, X), "val": (X, X)}}, {"m": (X, X)}, {"m": 3}
    ),
    "roc": lambda: roc_curves({"m": (X, X**0.5), "n": (X, X)}, {"m": (0.2, 0.4)}),
    "precision_recall": lambda: precision_recall_curves({"m": (X, 1 - X)}, {}, 0.2),
    "calibration": lambda: calibration_curves({"m": (X, X)}),
    "decision": lambda: decision_curves(X / 2, {"m": 0.2 - X / 5}, 0.2 - X, 0.2),
    "forest": lambda: forest(GROUPS, 0.8, "AUROC"),
    "histogram": lambda: histogram({"negative": X, "positive": X}, "probability"),
}


def png_size(data):
    assert data.startswith(b"\x89PNG")
    return struct.unpack(">II", data[16:24])


@pytest.mark.parametrize("name", CURVES)
def test_curve_is_small_svg_without_references_and_the_same_again(name):
    data = CURVES[name]()
    root = ElementTree.fromstring(data)  # noqa: S314 (our own drawing)
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    assert not [node for node in root.iter() if "font-family" in str(node.attrib)]
    assert len(data) < 60_000
    assert b"dc:date" not in data
    assert data == CURVES[name]()


def outside(data, size=8.5):
    """Texts of an SVG that reach over its left or right edge."""
    text = data.decode()
    width = float(re.search(r'viewBox="0 0 ([0-9.]+) ', text)[1])
    found = re.findall(r"<!-- (.+?) -->\s*<g [^>]*translate\(([-0-9.]+) ", text)
    assert len(found) > 5
    return [
        label
        for label, x in found
        if float(x) < 0 or float(x) + TextPath((0, 0), label, size=size).get_extents().x1 > width
    ]


@pytest.mark.parametrize("low", np.linspace(0.4, 0.58, 10).round(3))
@pytest.mark.parametrize("high", np.linspace(0.8, 0.96, 9).round(3))
def test_forest_labels_of_its_axis_stand_inside(low, high):
    """The ticks depend on the room that labels leave, and that on the ticks."""
    rows = [Interval("custom_cnn", 0.7, low, high), Interval("always negative", 0.5, None, None)]
    assert outside(forest({"": rows}, 0.5, "AUROC on test, 95 % interval")) == []


@pytest.mark.parametrize("name", sorted(set(CURVES) - {"forest"}))
def test_curve_labels_stand_inside(name):
    assert outside(CURVES[name]()) == []


def test_curves_drawn_at_once_by_threads_are_the_same():
    names = [*CURVES] * 3
    with ThreadPoolExecutor(4) as pool:
        drawn = list(pool.map(lambda name: CURVES[name](), names))
    for name, data in zip(names, drawn, strict=True):
        assert data == CURVES[name]()


def test_curve_text_is_data_not_markup():
    data = histogram({"<script>alert(1)</script>": X}, "a & b")
    assert b"<script>alert" not in data
    ElementTree.parse(io.BytesIO(data))  # noqa: S314


def test_image_png_has_the_images_own_size():
    image = np.random.default_rng(0).integers(0, 256, (48, 64)).astype(np.uint8)
    assert png_size(image_png(image)) == (64, 48)


def test_cam_panel_fits_a_thumbnail_and_is_the_same_again():
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (256, 256)).astype(np.uint8)  # noise: the least compressible
    heat = rng.normal(size=(256, 256)).astype(np.float32)
    panel = cam_panel(image, heat, np.array([[10.0, 20, 60, 80]]), (-2.0, 2.0))
    assert len(panel) < 300_000
    assert panel == cam_panel(image, heat, np.array([[10.0, 20, 60, 80]]), (-2.0, 2.0))


def test_cam_panel_of_a_flat_map_without_boxes_is_drawn():
    image = np.zeros((32, 32), np.uint8)
    panel = cam_panel(image, np.zeros((32, 32), np.float32), np.empty((0, 4)), (0.0, 0.0))
    assert png_size(panel) == (500, 236)
