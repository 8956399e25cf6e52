"""What is checked and told before any work starts."""

import os
import shutil
from pathlib import Path

from flows.stages import stages_until
from pneumonia.config import IMAGES_FOLDER, MODELS, PRETRAINED
from pneumonia.errors import ConfigError
from pneumonia.event_files import check_tensorboard
from pneumonia.labels import LABELS_CSV
from pneumonia.links import checked_name
from pneumonia.machine import gpus, resolve_accelerator, workers
from pneumonia.people import patient_key
from pneumonia.persons import read_persons
from pneumonia.pins import PINNED
from pneumonia.seals import digest_file
from pneumonia.split import read_split_file
from pneumonia.workspace import Workspace
from tasks.caching import Request
from tasks.split import find_grouping
from tasks.training import TRAINING


def check(request: Request, until: str, *, to_run: bool = True) -> None:
    """Refuse a request that cannot end well, before anything runs.

    Args:
        to_run: leave out what only a training needs, for who just looks.

    Raises:
        ConfigError: with what was expected, what came and the cure.
        SplitError: the person map or the split file cannot be read.
    """
    stages = {stage.name for stage in stages_until(until)}
    _check_run(request)
    for name in request.refresh:
        stages_until(name, "--refresh")
        if name not in stages:
            raise ConfigError(
                f"--refresh: expected a stage up to {until}, got {name}. Leave it out."
            )
    _check_models(request)
    if not request.raw.is_dir():
        raise ConfigError(
            f"--raw: expected a folder, got {request.raw}, which is none. data/README.md says how "
            "to get the challenge's data."
        )
    if "labels" in stages and not (request.raw / LABELS_CSV).is_file():
        raise _missing(request.raw / LABELS_CSV, "the challenge's label file")
    if "shards" in stages and not (request.raw / IMAGES_FOLDER).is_dir():
        raise _missing(request.raw / IMAGES_FOLDER, "the folder of DICOM files")
    for name, file in (("--persons", request.persons), ("--split-file", request.split_file)):
        if file is not None and not file.is_file():
            raise ConfigError(f"{name}: expected a file, got {file}, which is none. Mend the path.")
    if "split" in stages:
        patient_key()
        _check_maps(request)
    if "training" in stages and to_run:
        _check_weights(request)
        _check_machine(request)


def _check_run(request: Request) -> None:
    """See that the run may have its name and the workspace its place."""
    if checked_name(request.run) == PINNED:
        raise ConfigError(
            f"--run: expected another name than {PINNED!r}, under which `pneumonia pin` keeps "
            "artifacts. Choose another."
        )
    root = request.workspace.absolute()
    file = next((path for path in (root, *root.parents) if path.is_file()), None)
    if file is not None:
        raise ConfigError(f"--workspace: expected a folder, got a file, {file}. Choose another.")
    raw = request.raw.absolute()
    if root == raw or root.is_relative_to(raw / IMAGES_FOLDER):
        raise ConfigError(
            f"--workspace: expected a folder apart from the data, got {root}. Choose another."
        )


def _check_maps(request: Request) -> None:
    """Read who is who and the given split before any image is converted for them."""
    grouping = find_grouping(request)
    if grouping is not None:
        read_persons(grouping, request.config.split.max_match_mse)
    if request.split_file is not None:
        read_split_file(request.split_file)


def _check_models(request: Request) -> None:
    unknown = [model for model in request.models if model not in MODELS]
    if unknown or not request.models or len(set(request.models)) < len(request.models):
        raise ConfigError(
            f"--models: expected different ones of {', '.join(MODELS)}, "
            f"got {','.join(request.models) or 'none'!r}."
        )


def _check_weights(request: Request) -> None:
    """See that a file of weights fits, unless the run has used it before: that costs torch."""
    weights = request.config.training.weights
    if weights == "none":
        return
    if weights == "imagenet":
        _check_imagenet(request)
        return
    if not Path(weights).is_file():
        raise ConfigError(
            f"training.weights: expected `imagenet`, `none` or a file of tensors, got {weights!r}, "
            "which is none. Mend the path."
        )
    workspace, identity = Workspace(request.workspace), digest_file(Path(weights))
    for model in [model for model in request.models if model in PRETRAINED]:
        last = workspace.linked(request.run, f"training-{model}")
        used = workspace.find(last) if last else None
        if used is None or used.manifest.configuration["weights"] != identity:
            from pneumonia.checkpoint import check_weights

            check_weights(Path(weights), model)


def _check_machine(request: Request) -> None:
    if request.config.runtime.tensorboard:
        check_tensorboard()
    asked = request.config.runtime.devices
    if resolve_accelerator(request.config) == "gpu" and asked > len(gpus()):
        raise ConfigError(
            f"runtime.devices: expected at most the {len(gpus())} GPUs that this process may use, "
            f"got {asked}. Set a smaller number."
        )


def _check_imagenet(request: Request) -> None:
    """See that torchvision's weights can be had before hours of other work: that costs torch.

    Nothing is asked where they lie on this machine, or where a model of this workspace was made
    from them already.
    """
    cache = os.environ.get("XDG_CACHE_HOME", "~/.cache")
    hub = Path(os.environ.get("TORCH_HOME", f"{cache}/torch")).expanduser() / "hub" / "checkpoints"
    for model in [model for model in request.models if model in PRETRAINED]:
        if not any(hub.glob(f"{model}-*.pth")) and not _made_from_imagenet(request, model):
            from pneumonia.network import build

            build(model, weights="imagenet")


def _made_from_imagenet(request: Request, model: str) -> bool:
    workspace = Workspace(request.workspace)
    trainings = [each for each in workspace.references() if each.stage == TRAINING.name]
    made = [workspace.find(reference) for reference in trainings]
    wanted = {"model": model, "weights": "imagenet"}
    return any(each and wanted.items() <= each.manifest.configuration.items() for each in made)


def needs(request: Request, until: str) -> str:
    """One line on what the run may need of the machine and what the machine has."""
    told = []
    if any(stage.name == "shards" for stage in stages_until(until)):
        count, size = _measure(request.raw / IMAGES_FOLDER)
        side = request.config.shards.image_size
        told.append(
            f"{count:,} DICOM files ({_gigabytes(size)}), as {side} x {side} images "
            f"{_gigabytes(count * side * side)}"
        )
    free = shutil.disk_usage(_existing(request.workspace)).free
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    told.append(f"{_gigabytes(free)} of disk free, {_gigabytes(memory)} of memory")
    device = "a CPU"
    if resolve_accelerator(request.config) == "gpu":
        device = ", ".join(gpu.name for gpu in gpus())
    told.append(f"networks run on {device}, {workers(request.config)} threads")
    return "; ".join(told) + "."


def _missing(path: Path, what: str) -> ConfigError:
    return ConfigError(
        f"{path}: expected {what}, got nothing. data/README.md says how to get the challenge's "
        "data; `pneumonia simulate` makes a data set of the same layout."
    )


def _measure(folder: Path) -> tuple[int, int]:
    """Number and bytes of the DICOM files below a folder."""
    sizes = []
    for parent, _, names in os.walk(folder):
        sizes += [
            os.lstat(os.path.join(parent, name)).st_size  # noqa: PTH118 (26,684 Paths cost 0.3 s)
            for name in names
            if name.lower().endswith(".dcm")
        ]
    return len(sizes), sum(sizes)


def _existing(path: Path) -> Path:
    """The nearest parent that exists."""
    path = path.absolute()
    return path if path.exists() else _existing(path.parent)


def _gigabytes(size: int) -> str:
    return f"{size / 1e9:,.1f} GB" if size >= 1e8 else f"{size / 1e6:,.1f} MB"
