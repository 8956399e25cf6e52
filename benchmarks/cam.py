"""What exact class activation maps cost beside the forward pass, and beside the grad-cam package.

    pneumonia bench cam [--images 32] [--side 256] [--rounds 7] [--cpu]

All ways run on the same images of noise in every round, one after the other, in 32 bits on the
CPU; a ratio is the median over rounds of one round's two times. The exact map is one weighted sum
of features that the forward pass has anyway. GradCAM (Selvaraju et al. 2017) takes a backward pass
and gives, for networks that end as these do, the same map up to its scale, cut off at 0 and
enlarged to the image; it takes part where the `bench` extra is installed, and maps are compared.

Wall time means little while anything else runs on the machine: --cpu counts the processor time
of one thread instead.
"""

import argparse
import os
import statistics
import time
from collections.abc import Callable
from importlib.util import find_spec

import numpy as np
import torch

from pneumonia.activation import class_activation_maps
from pneumonia.config import MODELS
from pneumonia.network import Classifier, build, normalise

FORWARD, EXACT, PACKAGE = "forward pass alone", "exact CAM", "grad-cam's GradCAM"

Way = Callable[[torch.Tensor], np.ndarray]
"""Maps, or logits, of a batch of normalised images."""


def main() -> None:
    arguments = _arguments()
    grey = np.random.default_rng(0).integers(0, 256, (arguments.images, *[arguments.side] * 2))
    inputs = normalise(grey.astype(np.uint8))
    clock, unit = time.perf_counter, "wall time"
    if arguments.cpu:
        torch.set_num_threads(1)
        clock, unit = time.process_time, "processor time"
    print(
        f"{arguments.images} images of {arguments.side} px in one batch, median {unit} of "
        f"{arguments.rounds} rounds, {torch.get_num_threads()} of {os.cpu_count()} cores"
    )
    print(f"| model | way | ms an image | times {FORWARD} | times {EXACT} |\n|---|---|---|---|---|")
    for model in MODELS:
        torch.manual_seed(0)
        ways = ways_to_map(build(model).eval())
        maps = {name: way(inputs) for name, way in ways.items()}  # once, to warm up
        spent = measure(ways, inputs, arguments.rounds, clock)
        for name, seconds in spent.items():
            beside = (_ratio(seconds, spent[other]) for other in (FORWARD, EXACT))
            each = statistics.median(seconds) / arguments.images * 1e3
            print(f"| {model} | {name} | {each:.2f} | {' | '.join(beside)} |")
        if PACKAGE in maps:
            print(f"| {model} | correlation of the two maps, least | | | "
                  f"{_agreement(maps[EXACT], maps[PACKAGE]):.4f} |")  # fmt: skip


def ways_to_map(network: Classifier) -> dict[str, Way]:
    weight = network.head.weight[0]

    @torch.inference_mode()
    def forward(inputs: torch.Tensor) -> np.ndarray:
        return network(inputs).numpy()

    @torch.inference_mode()
    def exact(inputs: torch.Tensor) -> np.ndarray:
        features = network.features(inputs)
        network.head(features.mean(dim=(2, 3)))  # the logits, as the forward pass gives them
        return class_activation_maps(features, weight).numpy()

    ways: dict[str, Way] = {FORWARD: forward, EXACT: exact}
    if find_spec("pytorch_grad_cam"):
        from pytorch_grad_cam import GradCAM

        class OneColumn(torch.nn.Module):
            """The logits as (B, 1): the package averages over the dimensions that follow."""

            def __init__(self) -> None:
                super().__init__()
                self.network = network

            def forward(self, inputs: torch.Tensor) -> torch.Tensor:
                return self.network(inputs)[:, None]

        package = GradCAM(model=OneColumn(), target_layers=[network.body[-1]])
        ways[PACKAGE] = lambda inputs: package(inputs, targets=None)
    return ways


def measure(
    ways: dict[str, Way], inputs: torch.Tensor, rounds: int, clock: Callable[[], float]
) -> dict[str, list[float]]:
    """Seconds of each way in each round."""
    spent: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            started = clock()
            way(inputs)
            spent[name].append(clock() - started)
    return spent


def _ratio(seconds: list[float], others: list[float]) -> str:
    return f"{statistics.median(a / b for a, b in zip(seconds, others, strict=True)):.2f}"


def _agreement(exact: np.ndarray, package: np.ndarray) -> float:
    """The least correlation, over images, of the package's maps with the exact ones cut at 0.

    The package enlarges its maps to the image, as they are enlarged here.
    """
    enlarged = torch.nn.functional.interpolate(
        torch.from_numpy(exact)[:, None].clamp(min=0), package.shape[1:], mode="bilinear"
    )[:, 0].numpy()
    pairs = zip(enlarged.reshape(len(exact), -1), package.reshape(len(exact), -1), strict=True)
    return min(
        float(np.corrcoef(a, b)[0, 1]) if a.std() > 0 and b.std() > 0 else 1.0 for a, b in pairs
    )


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=32)
    parser.add_argument("--side", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--cpu", action="store_true")
    return parser.parse_args()


if __name__ == "__main__":
    main()
