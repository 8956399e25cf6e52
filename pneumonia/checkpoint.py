"""Checkpoints: a trained model as tensors and plain values, with the same bytes each time.

No path, no time and no code is in the file, and only tensors and plain values are read from one
(torch's `weights_only`): a checkpoint from elsewhere cannot run anything.
"""

import dataclasses
import errno
import io
import warnings
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pneumonia import network
from pneumonia.errors import ConfigError, CorruptArtifactError, PneumoniaError
from pneumonia.network import MEAN, STD, UNREADABLE, Classifier

FORMAT = 1

_KINDS: Mapping[str, Any] = {
    "model": str, "image_size": int, "crop_size": int, "fine_maps": bool, "epoch": int,
    "val_loss": float, "val_auroc": float, "training": dict,
}  # fmt: skip
"""Of a file's values, before anything computes with them."""

_TRAIN_AGAIN = "Train the model again: `pneumonia run --refresh training`."
_OTHER_WEIGHTS = "Give another file as training.weights, or `none`."


@dataclass(frozen=True)
class Checkpoint:
    """A trained model, ready to be evaluated.

    Args:
        model: name in `network.MODELS`.
        network: the model itself, in evaluation mode, on the CPU.
        image_size: side of the images it is shown, pixels: the whole stored image.
        crop_size: side of the crops it was trained on, pixels.
        mean, std: of the normalisation, on a scale of 0 to 1.
        fine_maps: whether the last stage has no stride.
        epoch: the epoch, from 1, whose weights these are: the best on val.
        val_loss: class-weighted log loss on val after that epoch.
        training: the training settings, as resolved.
    """

    model: str
    network: Classifier
    image_size: int
    crop_size: int
    mean: float
    std: float
    fine_maps: bool
    epoch: int
    val_loss: float
    val_auroc: float
    training: Mapping[str, Any]


def save(checkpoint: Checkpoint, path: Path) -> None:
    """Write a checkpoint; equal checkpoints give equal bytes."""
    content = {
        field.name: getattr(checkpoint, field.name)
        for field in dataclasses.fields(checkpoint)
        if field.name != "network"
    }
    state = plain_tensors(checkpoint.network.state_dict())
    content |= {"format": FORMAT, "training": dict(checkpoint.training), "state_dict": state}
    path.write_bytes(dump(content))


def load(path: Path) -> Checkpoint:
    """Read a checkpoint and build its model.

    Raises:
        CorruptArtifactError: the file is torn, holds more than tensors and plain values, its
            tensors are not those of the model that it names, a figure is of another kind, or it
            was trained on images normalised otherwise than here.
    """
    content = _read(path, CorruptArtifactError, _TRAIN_AGAIN)
    if content.get("format") != FORMAT:
        raise CorruptArtifactError(
            f"{path}: expected a checkpoint of format {FORMAT}, got {content.get('format')!r}. "
            f"{_TRAIN_AGAIN}"
        )
    del content["format"]
    try:
        _check_kinds(content)
        normalised = (content["mean"], content["std"])
        if normalised != (MEAN, STD):
            raise CorruptArtifactError(
                f"{path}: expected a model of images normalised by mean {MEAN:.6g} and standard "
                f"deviation {STD:.6g}, got {normalised[0]!r} and {normalised[1]!r}. {_TRAIN_AGAIN}"
            )
        tensors = content.pop("state_dict")
        model = network.build(content["model"], weights=tensors, fine_maps=content["fine_maps"])
        return Checkpoint(network=model.eval(), **content)
    except (ConfigError, KeyError, TypeError) as error:
        raise CorruptArtifactError(
            f"{path}: expected a checkpoint of one of this project's models, got {error}. "
            f"{_TRAIN_AGAIN}"
        ) from error


def read_weights(path: Path) -> dict[str, Tensor]:
    """The tensors of a checkpoint, or of a file of tensors by name such as torchvision's.

    Raises:
        ConfigError: there is no such file, or it holds something else.
    """
    content = _read(path, ConfigError, _OTHER_WEIGHTS)
    tensors = content.get("state_dict", content)
    if not isinstance(tensors, dict) or not _are_tensors(tensors):
        raise ConfigError(f"{path}: expected tensors by name, got other values. {_OTHER_WEIGHTS}")
    return dict(tensors)


def check_weights(path: Path, model: str) -> None:
    """See that a file given as `training.weights` fits a model, before any work.

    Raises:
        ConfigError: there is no such file, or its tensors are another model's.
    """
    build_from(path, model)


def build_from(path: Path, model: str, *, fine_maps: bool = False) -> Classifier:
    """Build a model whose first weights are a file's.

    Raises:
        ConfigError: there is no such file, or its tensors are another model's.
    """
    tensors = read_weights(path)
    try:
        return network.build(model, weights=tensors, fine_maps=fine_maps)
    except (ConfigError, RuntimeError) as error:  # torch's, of a tensor of an unheard-of shape
        reason = str(error).removeprefix("weights: ").rstrip(".")
        raise ConfigError(
            f"{path}: expected weights of {model} for training.weights, got others: {reason}. "
            "Train the models that the file fits alone, with --models NAME, or set "
            "training.weights=none."
        ) from error


def dump(content: Mapping[str, Any]) -> bytes:
    """Torch's file format in memory: written to a path, the archive would hold the file's name."""
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


def plain_tensors(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Copies on the CPU in the plain memory layout, no two of which share memory."""
    return {
        name: tensor.detach().to("cpu", copy=True, memory_format=torch.contiguous_format)
        for name, tensor in tensors.items()
    }


def _read(path: Path, error_class: type[PneumoniaError], cure: str) -> dict[str, Any]:
    try:
        _check_archive(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what torch finds strange here is refused below
            content = torch.load(path, map_location="cpu", weights_only=True)
    except (*UNREADABLE, zipfile.BadZipFile) as error:
        # Of the disk's words, but not torch's: it advises to load the file without its safeguard.
        known = isinstance(error, OSError) and error.strerror
        reason = known or f"other bytes ({type(error).__name__})"
        raise error_class(
            f"{path}: expected a file of tensors and plain values, got {reason}. {cure}"
        ) from error
    if not isinstance(content, dict):
        raise error_class(f"{path}: expected named tensors, got {type(content).__name__}. {cure}")
    if not all(isinstance(name, str) for name in content):
        raise error_class(f"{path}: expected tensors by name, got names that are no text. {cure}")
    return content


def _check_archive(path: Path) -> None:
    """See that a file cannot grow while it is read; torch's own archives are never compressed.

    Raises:
        OSError: there is no such file, or a pipe or device, which may never end.
        ValueError: it is an archive with compressed members, which may hold any number of zeros.
    """
    if path.exists() and not path.is_file():
        raise OSError(errno.EINVAL, "no regular file")
    if not zipfile.is_zipfile(path):
        return  # torch's older form, or nothing that it reads
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
    if any(member.compress_type != zipfile.ZIP_STORED for member in members) or (
        sum(member.file_size for member in members) > path.stat().st_size
    ):
        raise ValueError("compressed members")


def _are_tensors(tensors: Mapping[Any, Any]) -> bool:
    """Whether these are plain tensors of numbers by name."""
    return all(
        isinstance(name, str)
        and isinstance(tensor, Tensor)
        and tensor.layout == torch.strided
        and not (tensor.is_quantized or tensor.is_complex() or tensor.is_meta)
        for name, tensor in tensors.items()
    )


def _check_kinds(content: Mapping[str, Any]) -> None:
    """See that each value is of the kind that its field declares.

    Raises:
        TypeError: one is not.
    """
    if not isinstance(content["state_dict"], dict) or not _are_tensors(content["state_dict"]):
        raise TypeError("other values than tensors by name in state_dict")
    for name, kind in _KINDS.items():
        value = content[name]
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            raise TypeError(f"{type(value).__name__} for {name}")
