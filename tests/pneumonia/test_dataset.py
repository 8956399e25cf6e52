import pickle
import shutil
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import torch

from pneumonia.artifacts import Manifest, Reference, write_table
from pneumonia.dataset import PneumoniaDataset
from pneumonia.errors import ConfigError, CorruptArtifactError, StaleArtifactError
from pneumonia.pool import ImagePool
from pneumonia.workspace import Workspace

STORED = ["image_id", "pool", "row"]


def publish(workspace, stage, key, name, table):
    """A stage's artifact of one table, linked to the run `main`."""
    reference = Reference(stage, key)

    def write(scratch):
        write_table(table, scratch.output / name)
        return {}

    with workspace.lock(reference) as lock:
        workspace.build(Manifest(stage, key, 1, {}, {}), write, lock=lock)
    workspace.link("main", stage, reference)


@pytest.fixture(scope="module")
def folder(tmp_path_factory, make_pool):
    """A workspace with the stages `shards` and `split`: 32 images of train, 16 of val."""
    folder = tmp_path_factory.mktemp("dataset")
    table = make_pool(folder)
    workspace = Workspace(folder)
    # as in a real run, the two tables are not in one order
    publish(
        workspace, "shards", "k", "images.parquet", table[STORED].sample(frac=1, random_state=0)
    )
    publish(workspace, "split", "k", "studies.parquet", table.drop(columns=["pool", "row"]))
    return folder


@pytest.fixture
def copy(folder, tmp_path):
    return shutil.copytree(folder, tmp_path / "copy", symlinks=True)


@pytest.fixture(scope="module")
def stored(folder):
    return pd.read_parquet(folder / "runs" / "main" / "shards" / "images.parquet")


@pytest.fixture(scope="module")
def studies(folder):
    return pd.read_parquet(folder / "runs" / "main" / "split" / "studies.parquet")


def test_items_are_the_pixels_targets_and_names_of_the_run(folder, stored, studies):
    pool, target = ImagePool(folder / "pool", stored), studies.set_index("image_id")["target"]
    for image, told, image_id in PneumoniaDataset(folder):
        assert (image.dtype, image.shape) == (torch.uint8, (1, 32, 32))
        assert np.array_equal(image.numpy(), pool.gather_ids([image_id]))
        assert type(told) is int
        assert told == target[image_id]


@pytest.mark.parametrize(("side", "n"), [("train", 32), ("val", 16)])
def test_each_image_of_a_side_comes_once(folder, studies, side, n):
    shown = [image_id for _, _, image_id in PneumoniaDataset(str(folder), split=side)]
    assert len(shown) == len(set(shown)) == n
    assert set(shown) == set(studies.loc[studies["split"] == side, "image_id"])


def test_studies_has_a_row_per_item(folder):
    data = PneumoniaDataset(folder, split="val")
    assert data.studies["image_id"].tolist() == [image_id for _, _, image_id in data]


def test_index_counts_from_either_end_and_no_further(folder):
    data = PneumoniaDataset(folder)
    assert data[-1][2] == data[len(data) - 1][2]
    for index in (32, -33):
        with pytest.raises(IndexError, match=f"expected an index below 32, got {index}"):
            data[index]


def test_transform_makes_the_image(folder):
    data = PneumoniaDataset(folder, transform=lambda image: image[:, 2:30, 2:30] / 255)
    image, target, image_id = data[3]
    plain = PneumoniaDataset(folder)[3]
    assert torch.equal(image, plain[0][:, 2:30, 2:30] / 255)
    assert (target, image_id) == plain[1:]


def test_pickle_holds_no_pixels_and_opens_the_maps_anew(folder):
    data = PneumoniaDataset(folder)
    image = data[0][0]
    pickled = pickle.dumps(data)
    assert len(pickled) < 16_000  # the two shards have 49,152 bytes of pixels
    assert torch.equal(pickle.loads(pickled)[0][0], image)  # noqa: S301 (made above)


LOOP = """
import sys

import torch
from torch.utils.data import DataLoader

from pneumonia.dataset import PneumoniaDataset

if __name__ == "__main__":
    data = PneumoniaDataset(sys.argv[1])
    data[0]  # the maps are open when the workers start
    loader = DataLoader(data, batch_size=5, num_workers=2, multiprocessing_context=sys.argv[2])
    torch.save([list(batch) for batch in loader], sys.argv[3])
"""


@pytest.mark.slow
@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_two_workers_give_the_same_items(folder, tmp_path, start):
    """In a process of its own: this one may have threads of others, which no fork survives."""
    script = tmp_path / "loop.py"
    script.write_text(LOOP, "utf-8")
    subprocess.run([sys.executable, script, folder, start, tmp_path / "items"], check=True)
    batches = torch.load(tmp_path / "items", weights_only=True)
    images, target, image_ids = zip(*batches, strict=True)
    alone = list(PneumoniaDataset(folder))
    assert torch.equal(torch.cat(images), torch.stack([image for image, _, _ in alone]))
    assert torch.cat(target).tolist() == [told for _, told, _ in alone]
    assert [name for names in image_ids for name in names] == [name for _, _, name in alone]


def test_unknown_side_is_refused(folder):
    with pytest.raises(ConfigError, match="split: expected one of train, val, test, got 'valid'"):
        PneumoniaDataset(folder, split="valid")


def test_missing_run_is_refused(folder):
    with pytest.raises(ConfigError, match=r"expected one of its runs \(main\), got 'other'"):
        PneumoniaDataset(folder, run="other")


def test_folder_that_is_no_workspace_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=f"{tmp_path}: expected one of its runs .it has none"):
        PneumoniaDataset(tmp_path)


@pytest.mark.parametrize("stage", ["shards", "split"])
def test_run_that_has_not_come_so_far_is_refused(copy, stage):
    (copy / "runs" / "main" / stage).unlink()
    with pytest.raises(ConfigError, match=f"'main' to have finished {stage}.*run the pipeline"):
        PneumoniaDataset(copy)


def test_damaged_artifact_is_refused(copy):
    (copy / "split" / "k" / "studies.parquet").unlink()
    with pytest.raises(CorruptArtifactError, match="Run the pipeline again to make it"):
        PneumoniaDataset(copy)


def test_split_of_other_images_is_refused(copy, stored):
    fewer = stored[~stored["image_id"].isin(["image-003", "image-040"])]
    publish(Workspace(copy), "shards", "fewer", "images.parquet", fewer)
    with pytest.raises(StaleArtifactError, match=r"got one with 2 others \(first: image-003\)"):
        PneumoniaDataset(copy)
