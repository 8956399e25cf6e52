import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from pneumonia import augment, batches, config
from pneumonia.batches import (
    ALONE,
    Epoch,
    MappedSource,
    ResidentSource,
    TrainingData,
    Whole,
    open_source,
)
from pneumonia.network import STD, normalise
from pneumonia.pool import ImagePool
from pneumonia.processes import Processes

SIDE = 32  # of `make_pool`'s images
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("batches")


@pytest.fixture(scope="module")
def studies(folder, make_pool):
    return make_pool(folder)


@pytest.fixture(scope="module")
def pool(folder, studies):
    return ImagePool(folder / "pool", studies)


@pytest.fixture
def data(pool, studies):
    def make(*settings, source=None, processes=ALONE):
        return TrainingData(
            source or MappedSource(pool, CPU, workers=2),
            studies["target"].to_numpy(),
            np.flatnonzero(studies["split"] == "train"),
            np.flatnonzero(studies["split"] == "val"),
            config.parse_settings(
                [f"shards.image_size={SIDE}", "training.batch_size=10", *settings]
            ),
            processes=processes,
        )

    return make


def test_epoch_shows_each_training_image_at_most_once(data):
    rows = np.concatenate([batch.rows for batch in Epoch(data(), epoch=0, first_step=0)])
    assert len(rows) == 30  # three whole batches of the 32 images
    assert len(set(rows)) == 30
    assert set(rows) <= set(range(32))


def test_epoch_leaves_out_others_another_time(data):
    left_out = [
        set(range(32)) - {row for batch in Epoch(data(), epoch, 0) for row in batch.rows}
        for epoch in range(8)
    ]
    assert len(set.union(*left_out)) > 2


def test_epoch_smaller_than_a_batch_is_one_batch(data):
    shown = list(Epoch(data("training.batch_size=100"), 0, 0))
    assert [len(batch.rows) for batch in shown] == [32]


def test_epoch_follows_from_seed_and_number_alone(data):
    first, again = (list(Epoch(data(), 3, 0)) for _ in range(2))
    for one, other in zip(first, again, strict=True):
        assert torch.equal(one.inputs, other.inputs)
    other_seed = next(iter(Epoch(data("training.seed=1"), 3, 0)))
    other_epoch = next(iter(Epoch(data(), 4, 0)))
    assert not np.array_equal(first[0].rows, other_seed.rows)
    assert not np.array_equal(first[0].rows, other_epoch.rows)


def test_epoch_from_a_step_on_is_the_rest_of_it(data):
    whole, rest = list(Epoch(data(), 2, 0)), Epoch(data(), 2, first_step=1)
    assert len(rest) == 2
    for one, other in zip(whole[1:], rest, strict=True):
        assert torch.equal(one.inputs, other.inputs)
        assert torch.equal(one.target, other.target)


def test_epoch_joins_each_image_to_its_target(data, pool, studies):
    for batch in Epoch(data("training.augmentation=0", "training.flip=false"), 0, 0):
        assert batch.target.tolist() == studies["target"].iloc[batch.rows].astype(float).tolist()
        central = pool.gather(batch.rows)[:, 2:30, 2:30]
        assert torch.equal(batch.inputs, normalise(central))


def test_whole_is_every_val_image_once_unchanged(data, pool, studies):
    shown = list(Whole(data("training.batch_size=3")))
    assert [len(batch.rows) for batch in shown] == [6, 6, 4]
    assert len(Whole(data("training.batch_size=3"))) == 3
    rows = np.concatenate([batch.rows for batch in shown])
    assert rows.tolist() == np.flatnonzero(studies["split"] == "val").tolist()
    inputs = torch.cat([batch.inputs for batch in shown])
    assert torch.equal(inputs, normalise(pool.gather(rows)))


@pytest.mark.parametrize("settings", [(), ("training.batch_size=100",)])
def test_processes_deal_each_batch_out_among_them(data, settings):
    """32 images by tens, and all as one batch that has no equal shares for three."""
    alone = list(Epoch(data(*settings), 4, 0))
    count = 3 if settings else 2
    dealt = [
        list(Epoch(data(*settings, processes=Processes(r, count)), 4, 0)) for r in range(count)
    ]
    for whole, *shares in zip(alone, *dealt, strict=True):
        of_all = dict(zip(whole.rows, whole.inputs, strict=True))
        rows = np.concatenate([share.rows for share in shares])
        assert len({len(share.rows) for share in shares}) == 1
        assert len(rows) == len(set(rows)) == len(whole.rows) // count * count
        for share in shares:
            for row, image in zip(share.rows, share.inputs, strict=True):
                assert torch.equal(image, of_all[row])


def test_processes_see_each_val_image_once_between_them(data):
    rows = [
        np.concatenate([batch.rows for batch in Whole(data(processes=Processes(rank, 3)))])
        for rank in range(3)
    ]
    assert np.array_equal(np.sort(np.concatenate(rows)), data().val)
    assert [len(list(part)) for part in rows] == [6, 5, 5]


def test_number_of_threads_changes_nothing(pool):
    rows = np.arange(13)
    changes = augment.draw(
        np.random.default_rng(0), 13, side=SIDE, crop=28, strength=1.0, flip=True
    )
    crops = [MappedSource(pool, CPU, workers).crops(rows, changes, 28) for workers in (1, 2, 5, 20)]
    assert all(torch.equal(crops[0], other) for other in crops[1:])


def test_both_sources_agree_to_the_rounding_of_one(pool):
    mapped, resident = MappedSource(pool, CPU, workers=2), ResidentSource(pool, CPU)
    rows = np.array([40, 3, 3, 21])
    assert torch.equal(mapped.whole(rows), resident.whole(rows))
    changes = augment.draw(np.random.default_rng(0), 4, side=SIDE, crop=28, strength=1.0, flip=True)
    difference = mapped.crops(rows, changes, 28) - resident.crops(rows, changes, 28)
    # Half a grey level, and the contrast that is changed after rounding.
    assert 255 * STD * difference.abs().max() <= 0.53 * changes.contrast.max()


def test_resident_source_holds_a_part_of_the_images_in_host_memory(pool, monkeypatch):
    """Torch's `meta` device stands for a GPU: what lies there has a shape and no memory."""
    monkeypatch.setattr(batches, "_UPLOADED_AT_ONCE", 10)
    largest = 0

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            nonlocal largest
            result = function(*args, **(kwargs or {}))
            if isinstance(result, torch.Tensor) and result.device.type == "cpu":
                largest = max(largest, result.numel())
            return result

    with Watch():
        source = ResidentSource(pool, torch.device("meta"))
    assert source.whole(np.arange(48)).device.type == "meta"
    assert largest <= 10 * SIDE**2


def test_resident_source_uploaded_in_parts_is_whole(pool, monkeypatch):
    monkeypatch.setattr(batches, "_UPLOADED_AT_ONCE", 10)
    rows = np.arange(len(pool))
    assert np.array_equal(ResidentSource(pool, CPU).whole(rows).numpy(), pool.gather(rows))


def test_open_source_on_a_cpu_reads_the_memory_maps(pool):
    assert isinstance(open_source(pool, CPU, workers=1, memory_fraction=0.5), MappedSource)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_open_source_on_a_gpu_keeps_the_images_there(pool):
    source = open_source(pool, torch.device("cuda", 0), workers=1, memory_fraction=0.5)
    assert isinstance(source, ResidentSource)
    assert source.whole(np.arange(3)).is_cuda
