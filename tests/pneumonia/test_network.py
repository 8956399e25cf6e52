import logging

import numpy as np
import pytest
import torch
import torchvision
from torch.nn.functional import conv2d

from pneumonia import network
from pneumonia.errors import ConfigError


@pytest.fixture(scope="module")
def colour():
    """torchvision's ResNet18 with random weights and statistics, as ImageNet's would be."""
    torch.manual_seed(0)
    model = torchvision.models.resnet18(weights=None).eval()
    model.bn1.running_mean.normal_()
    model.bn1.running_var.uniform_(0.5, 2.0)
    return model


def three_channels(images):
    """Grey levels (B, h, w) as the three-channel network's input."""
    means, stds = torch.tensor(network._MEANS), torch.tensor(network._STDS)
    return (images[:, None] / 255 - means[:, None, None]) / stds[:, None, None]


@pytest.mark.parametrize("name", network.MODELS)
@pytest.mark.parametrize("fine_maps", [False, True])
def test_every_model_is_pooled_features_and_one_layer(name, fine_maps):
    model = network.build(name, fine_maps=fine_maps).eval()
    inputs = torch.randn(2, 1, 64, 64)
    features = model.features(inputs)  # (B, C, h, w)
    weighted = torch.einsum("bchw,c->bhw", features, model.head.weight[0])
    expected = weighted.mean(dim=(1, 2)) + model.head.bias
    torch.testing.assert_close(model(inputs), expected)


@pytest.mark.parametrize("name", network.MODELS)
def test_fine_maps_have_twice_as_many_cells_a_side(name):
    inputs = torch.zeros(1, 1, 128, 128)
    coarse, fine = (
        network.build(name, fine_maps=fine_maps).eval().features(inputs).shape
        for fine_maps in (False, True)
    )
    assert fine[2] == 2 * coarse[2]
    assert fine[1] == coarse[1]


@pytest.mark.parametrize("side", [128, 200])
@pytest.mark.parametrize("fine_maps", [False, True])
@pytest.mark.parametrize("name", network.MODELS)
def test_every_model_knows_its_stride(name, fine_maps, side):
    model = network.build(name, fine_maps=fine_maps).eval()
    cells = model.features(torch.zeros(1, 1, side, side)).shape[2]
    assert cells == -(-side // model.stride)  # cells at 0, stride, 2 stride, ... below the side


def test_custom_cnn_has_at_most_a_million_parameters():
    count = sum(weight.numel() for weight in network.build("custom_cnn").parameters())
    assert 500_000 < count <= 1_000_000


def test_custom_cnn_takes_odd_sizes():
    assert network.build("custom_cnn").eval()(torch.zeros(1, 1, 45, 33)).shape == (1,)


def test_grey_kernels_give_what_three_channels_give_up_to_the_border(colour):
    images = torch.rand(2, 48, 48) * 255
    kernels = colour.conv1.weight.detach()
    expected = conv2d(three_channels(images), kernels)  # no padding: no border
    constant = network.grey_constant(kernels)[:, None, None]
    got = conv2d(network.normalise(images), network.grey_kernels(kernels)) + constant
    torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-4)


def test_resnet18_from_three_channels_equals_it_on_grey_images_inside_the_border(colour):
    model = network.build("resnet18", weights=colour.state_dict()).eval()
    images = torch.rand(2, 64, 64) * 255
    expected = colour.bn1(colour.conv1(three_channels(images)))
    got = model.body.bn1(model.body.conv1(network.normalise(images)))
    inside = (..., slice(2, -2), slice(2, -2))  # 7x7 kernels with stride 2 reach so far
    torch.testing.assert_close(got[inside], expected[inside], atol=1e-5, rtol=1e-4)
    for name, tensor in colour.layer3.state_dict().items():
        assert torch.equal(tensor, model.body.layer3.state_dict()[name])


def test_imagenet_weights_are_converted(colour, monkeypatch, tmp_path):
    """torchvision's own way to the file, from a cache that holds it: nothing is downloaded."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    cache = tmp_path / "hub" / "checkpoints"
    cache.mkdir(parents=True)
    torch.save(colour.state_dict(), cache / "resnet18-f37072fd.pth")
    model = network.build("resnet18", weights="imagenet")
    expected = network.grey_kernels(colour.conv1.weight.detach())
    torch.testing.assert_close(model.body.conv1.weight.detach(), expected)


def test_imagenet_weights_that_cannot_be_had_are_refused_with_both_ways_out(monkeypatch, tmp_path):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    cache = tmp_path / "hub" / "checkpoints"
    cache.mkdir(parents=True)
    (cache / "resnet18-f37072fd.pth").write_bytes(b"half a download")
    with pytest.raises(ConfigError, match=r"training.weights=none .* training.weights=FILE"):
        network.build("resnet18", weights="imagenet")


def test_custom_cnn_says_that_it_starts_from_random_weights(caplog):
    with caplog.at_level(logging.INFO):
        network.build("custom_cnn", weights="imagenet")
    assert "custom_cnn has no ImageNet weights" in caplog.text


def test_same_seed_gives_same_first_weights():
    models = []
    for _ in range(2):
        torch.manual_seed(3)
        models.append(network.build("custom_cnn").state_dict())
    assert all(torch.equal(models[0][name], models[1][name]) for name in models[0])


def test_normalise_maps_grey_levels_to_the_networks_scale():
    levels = np.array([[[0, 255]]], dtype=np.uint8)
    expected = [(0 - network.MEAN) / network.STD, (1 - network.MEAN) / network.STD]
    assert network.normalise(levels).flatten().tolist() == pytest.approx(expected)


def test_build_refuses_a_name_it_does_not_know():
    with pytest.raises(ConfigError, match=r"custom_cnn, resnet18, got 'vgg'"):
        network.build("vgg")


def test_build_refuses_a_word_that_is_no_kind_of_weights():
    with pytest.raises(ConfigError, match="`imagenet`, `none` or a file"):
        network.build("resnet18", weights="mimic")


def test_build_refuses_tensors_of_another_model_by_name():
    other = network.build("custom_cnn").state_dict()
    with pytest.raises(ConfigError, match=r"missing 120 .*body.bn1.bias.*not known"):
        network.build("resnet18", weights=other)


def test_build_refuses_tensors_of_another_shape():
    tensors = network.build("custom_cnn").state_dict()
    tensors["head.weight"] = torch.zeros(1, 7)
    with pytest.raises(ConfigError, match=r"head.weight of shape \(1, 144\), got \(1, 7\)"):
        network.build("custom_cnn", weights=tensors)
