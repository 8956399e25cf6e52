"""The networks: from grey images to one logit each.

Each ends in global average pooling and one linear layer, so that its class activation map is
exact: the last feature map, weighted by that layer. A further model is one function and one name
in `MODELS`.
"""

import logging
import struct
from collections import OrderedDict
from collections.abc import Callable, Mapping
from pickle import UnpicklingError  # an exception to catch, the module is not used
from types import MappingProxyType

import numpy as np
import torch
import torchvision.models
from numpy.typing import NDArray
from torch import Tensor, nn

from pneumonia.errors import ConfigError

logger = logging.getLogger(__name__)

Tensors = Mapping[str, Tensor]

UNREADABLE = (
    OSError, RuntimeError, EOFError, ValueError, LookupError, UnpicklingError, struct.error,
    TypeError, AttributeError, AssertionError, ArithmeticError, MemoryError,
)  # fmt: skip
"""What torch raises for a file that is missing, torn or something else: mutated files end in errors
that no file should raise, of an assertion or an unpacking of bytes."""

# ImageNet's statistics per channel (red, green, blue), as torchvision's weights expect them,
# on a scale of 0 to 1; a grey image is normalised with their means.
_MEANS = (0.485, 0.456, 0.406)
_STDS = (0.229, 0.224, 0.225)
MEAN = sum(_MEANS) / 3  # 0.449
STD = sum(_STDS) / 3  # 0.226


class Classifier(nn.Module):
    """A convolutional body, global average pooling, one linear layer.

    Args:
        body: maps (B, 1, h, w) to (B, C, h', w').
        channels: C.
        stride: pixels from one cell of the feature map to the next.
        origin: the pixel that the first cell looks around; cell k looks around origin +
            k * stride, whatever the image's side: the cells are no tiles that share it out. It
            is 0 where every kernel is odd and padded by half of itself.
    """

    def __init__(self, body: nn.Sequential, channels: int, stride: int, origin: float) -> None:
        super().__init__()
        self.stride = stride
        self.origin = origin
        self.body = body
        self.head = nn.Linear(channels, 1)

    def features(self, inputs: Tensor) -> Tensor:
        """The last feature map, (B, C, h', w'), of normalised images (B, 1, h, w)."""
        features: Tensor = self.body(inputs)
        return features

    def forward(self, inputs: Tensor) -> Tensor:
        """Logits (B,) of normalised images (B, 1, h, w)."""
        pooled = self.features(inputs).mean(dim=(2, 3))  # (B, C)
        logits: Tensor = self.head(pooled)
        return logits.squeeze(1)


class Residual(nn.Module):
    """Two 3x3 convolutions around a shortcut (He et al. 2016, arXiv:1512.03385, figure 2).

    Args:
        channels_in: of the input (B, channels_in, h, w).
        channels: of the output (B, channels, h / stride, w / stride).
    """

    def __init__(self, channels_in: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, channels, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        # Average pooling before the 1x1 keeps the three quarters of the input that a strided
        # 1x1 would not look at (He et al. 2019, arXiv:1812.01187, ResNet-D).
        self.shortcut = (
            nn.Identity()
            if channels_in == channels and stride == 1
            else nn.Sequential(
                nn.AvgPool2d(stride, ceil_mode=True) if stride > 1 else nn.Identity(),
                nn.Conv2d(channels_in, channels, 1, bias=False),
                nn.BatchNorm2d(channels),
            )
        )

    def forward(self, inputs: Tensor) -> Tensor:
        """(B, channels_in, h, w) to (B, channels, h / stride, w / stride)."""
        inner = torch.relu(self.bn1(self.conv1(inputs)))
        return torch.relu(self.bn2(self.conv2(inner)) + self.shortcut(inputs))


def custom_cnn(*, fine_maps: bool, imagenet: bool) -> Classifier:
    """A small residual network: 0.87 M parameters, a fifth of ResNet18's arithmetic, stride 16.

    There are no ImageNet weights for it: it always starts from random ones and says so.

    The pooling in the shortcuts is even: by them alone a cell would look 7 pixels (3 of fine
    maps) past k * stride, by the convolutions 0. A trained network uses both about equally.
    """
    if imagenet:
        logger.info("custom_cnn has no ImageNet weights: it starts from random ones.")
    body = nn.Sequential(
        nn.Conv2d(1, 32, 3, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(32),
        nn.ReLU(),
        Residual(32, 48, stride=2),
        Residual(48, 96, stride=2),
        Residual(96, 144, stride=1 if fine_maps else 2),
        Residual(144, 144, stride=1),
    )
    _scale_to_fan_out(body)
    return Classifier(body, 144, *((8, 1.5) if fine_maps else (16, 3.5)))


def resnet18(*, fine_maps: bool, imagenet: bool) -> Classifier:
    """Torchvision's ResNet18 with one input channel: 11.2 M parameters, stride 32.

    Raises:
        OSError: the ImageNet weights are neither in torch's cache nor to be had.
    """
    source = torchvision.models.resnet18(weights="IMAGENET1K_V1" if imagenet else None)
    colour = source.state_dict()
    source.conv1 = nn.Conv2d(1, 64, 7, stride=2, padding=3, bias=False)
    nn.init.kaiming_normal_(source.conv1.weight, mode="fan_out", nonlinearity="relu")
    if fine_maps:
        source.layer4[0].conv1.stride = (1, 1)
        source.layer4[0].downsample[0].stride = (1, 1)
    # torchvision's own names, so that its files of weights fit: all its layers but the last two.
    layers = [(name, layer) for name, layer in source.named_children()][:-2]
    body = nn.Sequential(OrderedDict(layers))
    model = Classifier(body, 512, 16 if fine_maps else 32, origin=0.0)
    if imagenet:
        load_tensors(model, colour)
    return model


MODELS: Mapping[str, Callable[..., Classifier]] = MappingProxyType(
    {"custom_cnn": custom_cnn, "resnet18": resnet18}
)


def build(name: str, *, weights: str | Tensors = "none", fine_maps: bool = False) -> Classifier:
    """Build a model by name.

    Args:
        weights: `imagenet`, `none`, or tensors by name: a whole model's or torchvision's.
        fine_maps: leave out the last stage's stride, so that the feature map is twice as fine.

    Raises:
        ConfigError: no such model, tensors of another model, or weights that cannot be had.

    >>> model = build("custom_cnn")
    >>> model(torch.zeros(2, 1, 64, 64)).shape
    torch.Size([2])
    """
    if name not in MODELS:
        raise ConfigError(f"models: expected one of {', '.join(MODELS)}, got {name!r}.")
    if isinstance(weights, str) and weights not in {"imagenet", "none"}:
        raise ConfigError(f"training.weights: expected `imagenet`, `none` or a file, got {weights}")
    try:
        model = MODELS[name](fine_maps=fine_maps, imagenet=weights == "imagenet")
    except UNREADABLE as error:
        raise ConfigError(
            f"training.weights: expected torchvision's ImageNet weights of {name}, got {error}. "
            "Set training.weights=none to start from random ones, or training.weights=FILE to a "
            "copy of torchvision's file."
        ) from error
    if not isinstance(weights, str):
        load_tensors(model, weights)
    return model


def load_tensors(model: Classifier, tensors: Tensors) -> None:
    """Fill a model with tensors by name, of a model of this project or of torchvision.

    Raises:
        ConfigError: names or shapes are those of another model.
    """
    if "conv1.weight" in tensors and "head.weight" not in tensors:
        tensors = _from_torchvision(tensors, model.state_dict())
    own = model.state_dict()
    missing, surplus = sorted(own.keys() - tensors.keys()), sorted(tensors.keys() - own.keys())
    if missing or surplus:
        raise ConfigError(
            f"weights: expected the {len(own)} tensors of this model; "
            f"missing {_first(missing)}, not known {_first(surplus)}."
        )
    for name, tensor in own.items():
        if tensor.shape != tensors[name].shape:
            raise ConfigError(
                f"weights: expected {name} of shape {tuple(tensor.shape)}, "
                f"got {tuple(tensors[name].shape)}."
            )
    model.load_state_dict(tensors)


def grey_kernels(kernels: Tensor) -> Tensor:
    """One-channel kernels that see a grey image as the given ones see it in three channels.

    The three-channel network reads (x - mean_c) / std_c in channel c. With the input
    (x - MEAN) / STD the same sum needs the kernels w_c STD / std_c, added over c, and the
    constant of `grey_constant`.

    Args:
        kernels: (K, 3, h, w), for images normalised by ImageNet's statistics.

    Returns:
        (K, 1, h, w), for images normalised by MEAN and STD.
    """
    scale = STD / torch.tensor(_STDS, dtype=kernels.dtype)
    return (kernels * scale[:, None, None]).sum(dim=1, keepdim=True)


def grey_constant(kernels: Tensor) -> Tensor:
    """What the three-channel convolution gives beyond that of `grey_kernels`, (K,).

    True away from the border: there the padding with zeros means another grey per channel.
    """
    shift = (MEAN - torch.tensor(_MEANS)) / torch.tensor(_STDS)
    return kernels.sum(dim=(2, 3)) @ shift.to(kernels.dtype)


def normalise(images: NDArray[np.uint8] | Tensor) -> Tensor:
    """Make a network's input (B, 1, h, w) of grey levels (B, h, w) in 0 to 255."""
    grey = torch.as_tensor(images).unsqueeze(1).to(torch.float32)
    return (grey - 255 * MEAN).div_(255 * STD)


def _from_torchvision(tensors: Tensors, own: Tensors) -> dict[str, Tensor]:
    """Torchvision's ResNet tensors as this project's: one channel, the head left as it is."""
    kernels = tensors["conv1.weight"]
    renamed = {f"body.{name}": value for name, value in tensors.items() if name[:3] != "fc."}
    renamed["body.conv1.weight"] = grey_kernels(kernels)
    if "bn1.running_mean" in tensors:
        renamed["body.bn1.running_mean"] = tensors["bn1.running_mean"] - grey_constant(kernels)
    return renamed | {name: own[name] for name in ("head.weight", "head.bias")}


def _scale_to_fan_out(body: nn.Module) -> None:
    for layer in body.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")


def _first(names: list[str]) -> str:
    return f"{len(names)} (first: {names[0]})" if names else "none"
