"""Maps of random networks are unlike trained ones; maps that no weight changes are found out."""

import json

import numpy as np
import pytest
import torch
from torch import nn

from pneumonia.activation import class_activation_maps
from pneumonia.network import MODELS, build, normalise
from pneumonia.sanity import check_maps, randomise, stages

DEPTHS = ["head", "stage 4", "stage 3", "stage 2", "stage 1", "stem"]


def make(model="custom_cnn", seed=0):
    torch.manual_seed(seed)
    return build(model).eval()


def draw_images(n=6, side=64):
    """Grey noise with a bright square, another place in each."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 90, (n, side, side)).astype(np.uint8)
    for i, (y, x) in enumerate(rng.integers(0, side - 20, (n, 2))):
        images[i, y : y + 20, x : x + 20] += 150
    return images


@pytest.mark.parametrize("model", MODELS)
def test_stages_are_the_body_in_order(model):
    network, inputs = make(model), torch.randn(2, 1, 64, 64)
    told = stages(network)
    assert list(told) == ["stem", "stage 1", "stage 2", "stage 3", "stage 4"]
    with torch.inference_mode():
        whole = nn.Sequential(*told.values())(inputs)
        torch.testing.assert_close(whole, network.features(inputs))


@pytest.mark.parametrize("model", MODELS)
def test_randomise_goes_from_the_trained_network_to_the_other_one(model):
    trained, other = make(model), make(model, seed=1)
    inputs = normalise(draw_images())
    with torch.inference_mode():
        told = dict(randomise(trained, other, inputs))
        assert list(told) == DEPTHS
        head = class_activation_maps(trained.features(inputs), other.head.weight[0])
        all_of_it = class_activation_maps(other.features(inputs), other.head.weight[0])
    torch.testing.assert_close(told["head"], head)
    torch.testing.assert_close(told["stem"], all_of_it)


def test_randomise_changes_one_stage_after_the_other():
    """As if the other network's tensors were loaded into the trained one, stage by stage."""
    trained, other = make(), make(seed=1)
    inputs = normalise(draw_images())
    mixed = make()
    parts = {"head": ["head"], "stage 4": ["body.6"], "stage 3": ["body.5"]}
    with torch.inference_mode():
        for name, heats in randomise(trained, other, inputs):
            if name not in parts:
                break
            for part in parts[name]:
                mixed.get_submodule(part).load_state_dict(other.get_submodule(part).state_dict())
            expected = class_activation_maps(mixed.features(inputs), mixed.head.weight[0])
            torch.testing.assert_close(heats, expected)


def test_check_maps_that_no_weight_changes_fail():
    network = make()
    told = check_maps(network, lambda: network, draw_images())
    assert [layer["randomised"] for layer in told["layers"]] == DEPTHS
    assert [layer["ssim"] for layer in told["layers"]] == pytest.approx([1] * 6)
    assert told["random_pairs"] < 1
    assert told["passed"] is False


def test_check_maps_that_random_weights_turn_to_their_opposite_pass():
    def told(sign):
        network = make()
        with torch.no_grad():
            network.head.weight.mul_(sign)
        return network

    same = np.repeat(draw_images(1), 3, axis=0)  # pairs of equal images: the largest bar there is
    result = check_maps(told(1), lambda: told(-1), same)
    assert result["random_pairs"] == pytest.approx(1)
    assert all(layer["ssim"] < 0.9 for layer in result["layers"])
    assert result["passed"] is True


def test_check_maps_again_gives_the_same_and_leaves_the_random_numbers_alone():
    network, images = make(), draw_images()
    torch.manual_seed(5)
    first = check_maps(network, lambda: build("custom_cnn"), images)
    drawn = torch.rand(3)
    again = check_maps(network, lambda: build("custom_cnn"), images)
    assert first == again
    torch.manual_seed(5)
    assert torch.rand(3).tolist() == drawn.tolist()
    json.dumps(first, allow_nan=False)


@pytest.mark.parametrize("n", [0, 1])
def test_check_maps_without_a_pair_says_so(n):
    told = check_maps(make(), make, draw_images()[:n])
    assert told == {
        "images": n,
        "layers": [],
        "random_pairs": None,
        "passed": None,
        "reason": f"{n} positive test images, at least 2 people's needed",
    }
