import numpy as np
import pandas as pd
import pytest
from shard_files import write_shard

from pneumonia.errors import CorruptArtifactError, ShardError
from pneumonia.pool import IMAGES, ImagePool, create_shard

SIDE = 16


@pytest.fixture
def images(tmp_path):
    """Two shards of 5 and 3 images; image k is filled with k; the table mixes them."""
    for key, start, n in (("one", 0, 5), ("two", 5, 3)):
        stored = np.broadcast_to(np.arange(start, start + n)[:, None, None], (n, SIDE, SIDE))
        write_shard(tmp_path / key, stored.astype(np.uint8))
    order = [7, 0, 3, 5, 1]
    return pd.DataFrame(
        {
            "image_id": [f"image-{k}" for k in order],
            "pool": ["two" if k >= 5 else "one" for k in order],
            "row": [k - 5 if k >= 5 else k for k in order],
        }
    )


def test_gather_returns_images_in_the_order_asked(tmp_path, images):
    pool = ImagePool(tmp_path, images)
    found = pool.gather(np.array([4, 0, 0, 2]))
    assert (len(pool), pool.side, found.shape, found.dtype) == (5, SIDE, (4, SIDE, SIDE), np.uint8)
    assert found[:, 0, 0].tolist() == [1, 7, 7, 3]
    assert (found == found[:, :1, :1]).all()


def test_gather_ids_is_gather_by_name(tmp_path, images):
    pool = ImagePool(tmp_path, images)
    assert pool.gather_ids(["image-5", "image-7"])[:, 0, 0].tolist() == [5, 7]
    with pytest.raises(ShardError) as caught:
        pool.gather_ids(["image-5", "image-9"])
    assert str(caught.value) == (  # a plain run would take the cached table
        "1 images are not in the pool's table (first: image-9). "
        "Run `pneumonia run --refresh shards`."
    )


def test_gather_nothing_is_empty(tmp_path, images):
    assert ImagePool(tmp_path, images).gather(np.array([], np.int64)).shape == (0, SIDE, SIDE)


def test_gather_does_not_depend_on_the_index_of_the_table(tmp_path, images):
    pool = ImagePool(tmp_path, images.set_index(pd.Index(list("edcba"))))
    assert pool.gather(np.arange(5))[:, 0, 0].tolist() == [7, 0, 3, 5, 1]


def test_gather_copies_so_that_the_shard_stays_as_it_is(tmp_path, images):
    pool = ImagePool(tmp_path, images)
    pool.gather(np.array([0]))[:] = 99
    assert pool.gather(np.array([0]))[0, 0, 0] == 7


def test_image_pool_empty_table_raises(tmp_path, images):
    with pytest.raises(ShardError, match="at least one image"):
        ImagePool(tmp_path, images.iloc[:0])


@pytest.mark.parametrize("damage", ["missing", "cut", "short", "float", "flipped"])
def test_image_pool_damaged_shard_tells_path_and_cure(tmp_path, images, damage):
    path = tmp_path / "two" / IMAGES
    if damage == "missing":
        path.unlink()
    elif damage == "cut":
        path.write_bytes(path.read_bytes()[:200])
    elif damage == "short":
        np.save(path, np.zeros((2, SIDE, SIDE), np.uint8))
    elif damage == "float":
        np.save(path, np.zeros((3, SIDE, SIDE), np.float32))
    else:
        path.write_bytes(path.read_bytes()[:-1] + b"\x80")
    with pytest.raises(CorruptArtifactError, match=r"images\.npy: expected .* --verify"):
        ImagePool(tmp_path, images).gather(np.arange(5))


def test_create_shard_is_an_array_file_black_where_nothing_was_written(tmp_path):
    image = np.arange(SIDE * SIDE, dtype=np.uint8).reshape(SIDE, SIDE)
    with create_shard(tmp_path, 3, SIDE) as shard:
        shard.write(1, image)
    stored = np.load(tmp_path / IMAGES)
    assert (stored.shape, stored.dtype) == ((3, SIDE, SIDE), np.uint8)
    assert np.array_equal(stored[1], image)
    assert not stored[[0, 2]].any()


def test_shard_file_full_disk_is_an_error(tmp_path, monkeypatch):
    monkeypatch.setattr("pneumonia.pool.os.pwrite", lambda *_: 100)
    with create_shard(tmp_path, 1, SIDE) as shard, pytest.raises(OSError, match="No space left"):
        shard.write(0, np.zeros((SIDE, SIDE), np.uint8))
