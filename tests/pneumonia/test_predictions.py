import numpy as np
import pytest
import torch

from pneumonia import network
from pneumonia.checkpoint import Checkpoint
from pneumonia.errors import ConfigError
from pneumonia.pool import ImagePool
from pneumonia.predictions import BATCH, logits_of, predict_logits

SIDE = 32  # of `make_pool`'s images


@pytest.fixture(scope="module")
def trained():
    torch.manual_seed(0)
    model = network.build("custom_cnn").eval()
    return Checkpoint(
        "custom_cnn", model, SIDE, 28, network.MEAN, network.STD, False, 1, 0.5, 0.8, {}
    )


@pytest.fixture(scope="module")
def pool(tmp_path_factory, make_pool):
    folder = tmp_path_factory.mktemp("predictions")
    return ImagePool(folder / "pool", make_pool(folder))


def predict(checkpoint, pool, positions):
    return predict_logits(checkpoint, pool, np.array(positions), accelerator="cpu", workers=1)


def test_predict_logits_are_the_networks_in_the_order_asked(trained, pool):
    positions = [5, 40, 0, 5]
    with torch.inference_mode():
        expected = trained.network(network.normalise(pool.gather(np.array(positions))))
    got = predict(trained, pool, positions)
    assert got.dtype == np.float64
    np.testing.assert_allclose(got, expected.numpy(), atol=1e-5)
    assert got[0] == got[3]


def test_predict_logits_do_not_depend_on_what_else_is_predicted(trained, pool):
    everything = predict(trained, pool, range(48))
    assert np.array_equal(predict(trained, pool, [17]), everything[[17]])
    some = list(range(3, 3 + BATCH + 4))
    assert np.array_equal(predict(trained, pool, some), everything[some])
    assert np.array_equal(predict(trained, pool, range(47, -1, -1)), everything[::-1])


def test_predict_logits_do_not_depend_on_the_number_of_threads(trained, pool):
    positions = np.arange(20)
    one, three = (
        predict_logits(trained, pool, positions, accelerator="cpu", workers=n) for n in (1, 3)
    )
    assert np.array_equal(one, three)


def test_predict_logits_leaves_the_checkpoint_as_it_was(trained, pool):
    before = {name: tensor.clone() for name, tensor in trained.network.state_dict().items()}
    predict(trained, pool, [1, 2])
    assert all(torch.equal(before[name], t) for name, t in trained.network.state_dict().items())


def test_predict_logits_of_another_image_size_raises(trained, pool):
    other = Checkpoint(**vars(trained) | {"image_size": 64})
    with pytest.raises(ConfigError, match=r"expected 64.*pool of 32. Set shards.image_size=64"):
        predict(other, pool, [0])


def test_logits_of_nothing_are_none(trained):
    assert logits_of(trained, [], accelerator="cpu", workers=1).shape == (0,)
