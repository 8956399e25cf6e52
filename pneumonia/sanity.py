"""Sanity of the maps: do they follow what the network has learnt, or would any network do?

In: a trained network, one that makes untrained ones, some images. Out: the `sanity` of `cam.json`.
From the head down to the stem the weights become random ones (Adebayo et al. 2018,
arXiv:1810.03292, cascading randomisation), and at each depth the maps are compared with those of
the trained network. An edge detector looks as good as ever at the end of that; a map that shows
what was learnt does not.
"""

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from pneumonia.activation import class_activation_maps
from pneumonia.network import Classifier, normalise
from pneumonia.similarity import Array, scale, ssim

IMAGES = 16
"""Images at most: 120 pairs, and all depths of all draws together as much work as some 200."""
DRAWS = 4
"""Random networks, their similarities averaged: the sign of one's map is a toss of a coin."""
STEM = "stem"
"""The layers before the first stage; once they are random too, nothing learnt is left."""
_FIRST_SEED = 2**31  # beyond every training's (config.Seed): no draw is the first weights of one


def check_maps(
    network: Classifier, draw: Callable[[], Classifier], images: NDArray[np.uint8]
) -> dict[str, Any]:
    """Compare the maps of a network with those of the same network, more and more of it random.

    It passes where, all weights being random, the maps are less similar to the trained network's
    of the same images than the trained network's maps of different images are to each other, all
    as mean SSIM of maps scaled to [0, 1].

    Args:
        network: trained, in evaluation mode, on the CPU.
        draw: makes an untrained network of the same shape from torch's random numbers.
        images: (N, side, side), of people who differ.

    Returns:
        images (N), layers (`randomised`, the lowest stage that is random, and its `ssim`),
        random_pairs and passed, null with the reason for fewer than two images.
    """
    if len(images) < 2:
        why = f"{len(images)} positive test images, at least 2 people's needed"
        return {
            "images": len(images),
            "layers": [],
            "random_pairs": None,
            "passed": None,
            "reason": why,
        }
    told: dict[str, list[float]] = {}
    with torch.inference_mode(), torch.random.fork_rng(devices=[]):
        inputs = normalise(images)
        trained = _scaled(class_activation_maps(network.features(inputs), network.head.weight[0]))
        for number in range(DRAWS):
            torch.manual_seed(_FIRST_SEED + number)
            for name, heats in randomise(network, draw().eval(), inputs):
                told.setdefault(name, []).extend(map(ssim, trained, _scaled(heats)))
    means = {name: float(np.mean(values)) for name, values in told.items()}
    pairs = float(np.mean([ssim(*pair) for pair in itertools.combinations(trained, 2)]))
    return {
        "images": len(images),
        "layers": [{"randomised": name, "ssim": mean} for name, mean in means.items()],
        "random_pairs": pairs,
        "passed": means[STEM] < pairs,
        "reason": None,
    }


def randomise(
    trained: Classifier, untrained: Classifier, inputs: Tensor
) -> Iterator[tuple[str, Tensor]]:
    """The maps with the head of another network, then with its last stage too, and so on.

    Args:
        inputs: (B, 1, side, side) normalised.

    Yields:
        the lowest stage that is the other network's, and the maps (B, h, w).
    """
    own, other = stages(trained), list(stages(untrained).values())
    entering = [inputs]  # what enters each stage of the trained network, and what leaves the last
    for stage in own.values():
        entering.append(stage(entering[-1]))
    weight = untrained.head.weight[0]
    yield "head", class_activation_maps(entering[-1], weight)
    for depth, name in reversed(list(enumerate(own))):
        features = nn.Sequential(*other[depth:])(entering[depth])
        yield name, class_activation_maps(features, weight)


def stages(network: Classifier) -> dict[str, nn.Sequential]:
    """The body in order: the stem of single layers, then a stage for each block of several."""
    groups: list[list[nn.Module]] = [[]]
    for layer in network.body:
        if any(True for _ in layer.children()):
            groups.append([layer])
        else:
            groups[-1].append(layer)
    names = [STEM, *(f"stage {number}" for number in range(1, len(groups)))]
    return {name: nn.Sequential(*group) for name, group in zip(names, groups, strict=True)}


def _scaled(heats: Tensor) -> list[Array]:
    return [scale(heat) for heat in heats.numpy()]
