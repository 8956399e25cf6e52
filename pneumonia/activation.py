"""The class activation map itself: what each place of an image adds to the logit."""

import torch
from torch import Tensor


def class_activation_maps(features: Tensor, weight: Tensor) -> Tensor:
    """Weigh the feature maps by the linear layer (Zhou et al. 2016, arXiv:1512.04150, eq. 2).

    Args:
        features: (B, C, h, w) of the last layer before pooling.
        weight: (C,) of the linear layer.

    Returns:
        (B, h, w); the mean over the cells is the logit less the bias.
    """
    return torch.einsum("bchw,c->bhw", features, weight)
