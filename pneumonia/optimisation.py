"""How weights are moved: AdamW, one cycle of the learning rate, and a moving average of weights."""

import copy
import math

import torch
from torch import Tensor, nn
from torch.optim import AdamW


def make_optimiser(network: nn.Module, learning_rate: float, weight_decay: float) -> AdamW:
    """AdamW that decays the kernels only: not biases, nor the scales of normalisation.

    Those have one dimension; shrinking them changes the function without making it simpler
    (Goyal et al. 2017, arXiv:1706.02677, section 5.3).
    """
    kernels = [weight for weight in network.parameters() if weight.ndim > 1]
    others = [weight for weight in network.parameters() if weight.ndim <= 1]
    groups = [
        {"params": kernels, "weight_decay": weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    return AdamW(groups, lr=learning_rate, fused=True)


def one_cycle(step: int, total: int, warmup_fraction: float) -> float:
    """The learning rate of a step as a fraction of its peak: a linear rise, then half a cosine.

    Args:
        step: from 0.
        total: steps of the whole schedule.
        warmup_fraction: the share of them in which the rate rises.

    >>> [round(one_cycle(step, 10, 0.2), 3) for step in (0, 1, 2, 6, 10)]
    [0.5, 1.0, 1.0, 0.5, 0.0]
    """
    warmup = max(1, round(total * warmup_fraction))
    if step < warmup:
        return (step + 1) / warmup
    return (1 + math.cos(math.pi * (step - warmup) / max(1, total - warmup))) / 2


class Average:
    """Exponential moving average of a network's weights and normalisation statistics.

    Its horizon is half an epoch; in the first steps it is shorter, so that the random first
    weights are soon forgotten.

    Args:
        network: what is averaged; the average lives on the same device.
        steps: training steps in an epoch.
    """

    def __init__(self, network: nn.Module, steps: int) -> None:
        self.network = copy.deepcopy(network).requires_grad_(requires_grad=False).eval()
        self._decay = 1 - 1 / max(2.0, steps / 2)

    @property
    def tensors(self) -> list[Tensor]:
        """Its weights and running statistics."""
        return _floats(self.network)

    @torch.no_grad()
    def update(self, network: nn.Module, step: int) -> None:
        """Move the average towards the network after a step, counted from 0."""
        share = 1 - min(self._decay, (1 + step) / (10 + step))
        torch._foreach_lerp_(_floats(self.network), _floats(network), share)


def _floats(network: nn.Module) -> list[Tensor]:
    """Weights and running statistics; the counters of seen batches stay apart."""
    tensors = [*network.parameters(), *network.buffers()]
    return [tensor.detach() for tensor in tensors if tensor.is_floating_point()]
