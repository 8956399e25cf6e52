import numpy as np
import torch
from torch import nn

from pneumonia.optimisation import Average, make_optimiser, one_cycle


def small():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2))


def test_one_cycle_rises_then_falls_to_nearly_nothing():
    rates = np.array([one_cycle(step, 100, 0.1) for step in range(100)])
    assert rates.argmax() in {9, 10}
    assert rates.max() == 1.0
    assert (np.diff(rates[:10]) > 0).all()
    assert (np.diff(rates[10:]) < 0).all()
    assert 0 < rates[-1] < 1e-3


def test_one_cycle_of_one_step_is_at_its_peak():
    assert one_cycle(0, 1, 0.5) == 1.0


def test_optimiser_decays_kernels_only():
    network = small()
    decayed, kept = make_optimiser(network, 1e-3, 0.05).param_groups
    assert [weight.ndim for weight in decayed["params"]] == [4]
    assert (decayed["weight_decay"], kept["weight_decay"]) == (0.05, 0.0)
    assert len(decayed["params"]) + len(kept["params"]) == len(list(network.parameters()))


def test_average_by_hand():
    network = small()
    average = Average(network, steps=4)  # decay 1 - 1 / 2, in the first step 1 / 10
    with torch.no_grad():
        network[0].weight.fill_(1.0)
        average.network[0].weight.fill_(0.0)
    average.update(network, step=0)
    torch.testing.assert_close(average.network[0].weight, torch.full((2, 1, 3, 3), 0.9))
    average.update(network, step=1000)
    torch.testing.assert_close(average.network[0].weight, torch.full((2, 1, 3, 3), 0.95))


def test_average_follows_statistics_and_leaves_the_network_alone():
    network = small()
    average = Average(network, steps=100)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    network[1].running_mean.fill_(5.0)
    for step in range(5000):
        average.update(network, step)
    torch.testing.assert_close(average.network[1].running_mean, torch.full((2,), 5.0))
    assert torch.equal(network[0].weight, before["0.weight"])
    assert not any(weight.requires_grad for weight in average.network.parameters())
