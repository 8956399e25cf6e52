"""The same film under two names: found across sides, and other films not taken for it."""

import io
import tarfile

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from shard_files import write_shard

from pneumonia.duplicates import COLUMNS, count_duplicates, detail, find_duplicates
from pneumonia.files import digest
from pneumonia.pool import ImagePool


def film(seed, size=128):
    """Broad shapes as all chests have them, and detail as only one has."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:size, 0:size] / size
    chest = 120 + 80 * np.cos(6 * x) * np.cos(5 * y)
    grain = rng.normal(0, 1, (size // 4, size // 4)).repeat(4, 0).repeat(4, 1)
    return np.clip(chest + 12 * grain, 0, 255).astype(np.uint8)


def jpeg(image, quality):
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=quality)
    return np.asarray(Image.open(buffer))


def gamma(image, exponent):
    return np.rint(255 * (image / 255) ** exponent).astype(np.uint8)


@pytest.fixture
def look(tmp_path):
    """Finds the duplicates among images, each with its side, named a, b, c ..."""

    def look(*images, rows=1024, columns=1024):
        stack = np.stack([image for _, image in images])
        side = stack.shape[1]
        write_shard(tmp_path / "pool" / "k", stack)
        scale = side / max(rows, columns)
        studies = pd.DataFrame(
            {
                "image_id": [chr(ord("a") + i) for i in range(len(images))],
                "split": [split for split, _ in images],
                "pixel_digest": [digest(image.tobytes()) for image in stack],
                "rows": rows,
                "columns": columns,
                "scale": scale,
                "offset_x": (side - columns * scale) / 2,
                "offset_y": (side - rows * scale) / 2,
                "pool": "k",
                "row": np.arange(len(images)),
            }
        )
        return find_duplicates(studies, ImagePool(tmp_path / "pool", studies))

    return look


def pairs(table):
    assert tuple(table.columns) == COLUMNS
    return list(zip(table["image_id"], table["other_id"], table["kind"], strict=True))


def test_detail_rows_have_length_one_and_flat_frames_none():
    rows = detail([film(0), film(1), np.full((90, 70), 7, np.uint8)], 64)
    assert rows.shape == (3, 64 * 64)
    np.testing.assert_allclose((rows**2).sum(1), [1, 1, 0], atol=1e-5)
    np.testing.assert_allclose(rows.mean(1), 0, atol=1e-6)


def test_detail_brightness_and_contrast_make_no_difference():
    image = film(0)
    darker = (image * 0.5 + 20).astype(np.float32).round().astype(np.uint8)
    one, other = detail([image, darker], 64)
    assert one @ other > 0.99


def test_equal_pixels_on_two_sides_are_exact(look):
    table = look(("train", film(0)), ("test", film(0)), ("val", film(1)), ("train", film(1)))
    assert pairs(table) == [("b", "a", "exact"), ("c", "d", "exact")]
    assert table["split"].tolist() == ["test", "val"]
    assert table["other_split"].tolist() == ["train", "train"]
    assert count_duplicates(table, 128) == {
        "exact": 2, "near": 0, "images": {"val": 1, "test": 1},
    }  # fmt: skip


@pytest.mark.parametrize(
    "copy",
    [lambda f: jpeg(f, 85), lambda f: gamma(f, 0.8), lambda f: gamma(f, 1.4), lambda f: f // 2],
    ids=["JPEG", "brighter", "darker", "window"],
)
def test_a_film_exported_again_is_near(look, copy):
    table = look(("train", film(0)), ("test", copy(film(0))), ("val", film(1)), ("train", film(2)))
    assert pairs(table) == [("b", "a", "near")]
    assert 0.96 <= table["correlation"][0] <= 1


def test_films_with_the_same_broad_shapes_are_not_duplicates(look):
    assert look(*[(split, film(seed)) for seed, split in enumerate(("train", "val", "test"))]).empty


def test_duplicates_on_one_side_leak_nothing(look):
    assert look(("train", film(0)), ("train", film(0)), ("test", film(1)), ("test", film(1))).empty


def test_three_of_a_kind_are_every_pair_across_sides(look):
    table = look(("train", film(0)), ("val", film(0)), ("test", jpeg(film(0), 85)))
    assert pairs(table) == [("b", "a", "exact"), ("c", "a", "near"), ("c", "b", "near")]


def test_padding_that_is_alike_is_not_compared(look):
    """Narrow frames between black margins: the margins' edges would be the strongest detail."""

    def narrow(seed):
        image = np.zeros((128, 128), np.uint8)
        image[:, 48:80] = film(seed)[:, 48:80]
        return image

    assert look(("train", narrow(0)), ("test", narrow(1)), rows=1024, columns=256).empty


def test_small_images_are_compared_by_equality_alone(look):
    table = look(("train", film(0, 64)), ("test", film(0, 64)), ("val", jpeg(film(0, 64), 95)))
    assert pairs(table) == [("b", "a", "exact")]
    assert count_duplicates(table, 64)["near"] is None


@pytest.mark.rsna
def test_real_films_of_different_people_are_not_duplicates_and_their_copies_are(real_data):
    with tarfile.open(real_data / "kermany224_train.tar") as archive:
        names = sorted(name for name in archive.getnames() if name.endswith(".jpeg"))[::40]
        films = [np.asarray(Image.open(archive.extractfile(n)).convert("L")) for n in names]
    assert len(films) >= 130
    for side, least, highest in ((64, 0.95, 0.8), (128, 0.96, 0.8)):
        own = detail(films, side)
        between = own @ own.T - 2 * np.eye(len(own), dtype=np.float32)
        assert between.max() < highest
        for copy in (lambda f: jpeg(f, 50), lambda f: gamma(f, 0.8), lambda f: gamma(f, 1.4)):
            alike = (own * detail([copy(f) for f in films], side)).sum(1)
            assert np.quantile(alike, 0.01) >= least
