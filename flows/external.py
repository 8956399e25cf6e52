"""The external test of a finished model: another data set in, a folder with its report out.

    OUT/report.html, evaluation.json, cam.json with its PNG files, predictions.csv
    OUT/workspace/   labels and images of the other data set, and the test itself as an artifact

The files are copies of a complete artifact, the report last: where it stands, all of it stands.
"""

import logging
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from prefect import flow

from flows.conversion import convert_new_files
from flows.preflight import check, needs
from flows.stages import stage_line
from pneumonia.artifacts import Artifact, Reference, read_manifest
from pneumonia.config import IMAGES_FOLDER, Config, RuntimeConfig, ShardsConfig, SplitConfig
from pneumonia.errors import ConfigError, CorruptArtifactError, NothingLeftError
from pneumonia.inventory import list_dicom
from pneumonia.machine import resolve_accelerator
from pneumonia.seals import digest_file
from pneumonia.workspace import Workspace
from tasks.caching import Context, Request
from tasks.external import EXTERNAL, KNOWN, Home, external_stage, home_of
from tasks.labels import LABELS
from tasks.shards import POOL, SHARDS

logger = logging.getLogger(__name__)

REPORT = "report.html"
WORKSPACE = "workspace"
MADE = frozenset({LABELS.name, SHARDS.name, POOL.name, EXTERNAL, "runs", ".state"})
"""What stands in the workspace of an external test."""


@flow(name="external", persist_result=False)
def external(
    raw: Path,
    workspace: Path,
    model: str,
    out: Path,
    persons: Path | None = None,
    by_image: bool = False,
    run: str = "main",
    config: Config = Config(),  # noqa: B008 (frozen)
) -> None:
    """Test a finished model on another data set; nothing is fitted, `workspace` is only read.

    Raises:
        PneumoniaError: whatever was found wrong, as it was said.
    """
    home, request = prepare(raw, workspace, model, out, persons, by_image, run, config)
    logger.info("%s", needs(request, SHARDS.name))
    references: dict[str, Reference] = {}
    with _no_trace_of_a_wrong_request(out), Workspace(request.workspace).in_use():
        for stage in (LABELS, SHARDS, external_stage(home, _name(raw))):
            context = Context(request, dict(references), model if stage.per_model else "")
            if stage is SHARDS:
                convert_new_files(context)
            outcome = stage.run(context)
            logger.info("%s", stage_line(stage.link_name(context.member), stage, outcome))
            references[stage.name] = outcome.reference
    publish(Workspace(request.workspace).get(references[EXTERNAL]), out)
    logger.info("Report: %s", out / REPORT)


def prepare(
    raw: Path,
    workspace: Path,
    model: str,
    out: Path,
    persons: Path | None,
    by_image: bool,
    run: str,
    config: Config,
) -> tuple[Home, Request]:
    """Find the model and refuse a request that cannot end well, before anything is written.

    Raises:
        ConfigError: with what was expected, what came and the cure.
        StaleArtifactError: the run's artifacts are not of one state.
    """
    _refuse_other_settings(config)
    home = home_of(workspace, run, model)
    request = Request(
        raw=raw,
        workspace=out / WORKSPACE,
        config=home.config(config),
        run=run,
        models=(model,),
        persons=persons,
        by_image=by_image,
        noted_as=f"external-{run}-{model}",
    )
    _refuse_foreign(out, workspace)
    check(request, "split")  # labels, images and who is who
    resolve_accelerator(request.config)
    _refuse_home_itself(home, raw)
    return home, request


def publish(artifact: Artifact, out: Path) -> None:
    """Copy an external test into the folder that was asked for; what is so already stays.

    The report is taken away first and put back last, so that a folder with one is whole.
    """
    files = artifact.manifest.files
    gone = _published(out) - set(files)
    other = [name for name in files if not _is(out / name, files[name]["sha256"])]
    if not gone and not other:
        return
    (out / REPORT).unlink(missing_ok=True)
    for name in gone:
        (out / name).unlink(missing_ok=True)
    fresh = Workspace(out / WORKSPACE).state / f"copy.{os.getpid()}"
    for name in sorted({*other, REPORT}, key=lambda name: name == REPORT):
        fresh.write_bytes((artifact.path / name).read_bytes())
        fresh.replace(out / name)


def _is(path: Path, sha256: str) -> bool:
    return path.is_file() and digest_file(path) == sha256


def _published(out: Path) -> set[str]:
    """Names of the files that any external test in the folder's workspace has."""
    workspace = Workspace(out / WORKSPACE)
    names: set[str] = set()
    for reference in workspace.references():
        if reference.stage == EXTERNAL:
            try:
                names.update(read_manifest(workspace.path(reference)).files)
            except CorruptArtifactError:
                continue  # made again where it is needed, and its files with it
    return names


def _refuse_foreign(out: Path, workspace: Path) -> None:
    """Nothing is written to the home workspace, nor among files that are none of ours."""
    if out.resolve().is_relative_to(workspace.resolve()):
        raise ConfigError(
            f"--out: expected a folder outside the workspace {workspace}, which is only read, got "
            f"{out}. Choose another place."
        )
    if not out.exists():
        return
    if not out.is_dir():
        raise ConfigError(f"--out: expected a folder, got the file {out}. Choose another place.")
    foreign = [path for path in out.iterdir() if path.name not in {WORKSPACE, *_published(out)}]
    if (out / WORKSPACE).is_dir():
        foreign += [path for path in (out / WORKSPACE).iterdir() if path.name not in MADE]
    if foreign:
        raise ConfigError(
            f"--out: expected a new folder or that of an earlier external test, got {out}, which "
            f"holds other content (first: {min(foreign)}). Choose another place."
        )


def _refuse_home_itself(home: Home, raw: Path) -> None:
    """Images of the home run's names are left out of a test: where all are, none would be left.

    Films of the home run under other names are known by their pixels, once they are converted.
    """
    names = {entry.image_id for entry in list_dicom([raw / IMAGES_FOLDER])}
    known = set(home.known(home.shards.table("images.parquet", KNOWN))["image_id"])
    if names and names <= known:
        raise ConfigError(
            f"--raw: expected images that the run {home.frozen.run!r} does not have, got "
            f"{len(names):,} in {raw}, all of which have the name of one of its own. Give another "
            "data set, or rename files and labels where only the names agree."
        )


@contextmanager
def _no_trace_of_a_wrong_request(out: Path) -> Iterator[None]:
    """What was converted before its pixels told that none of it is new is taken away again."""
    made = [path for path in (out / WORKSPACE, out) if not path.exists()]
    try:
        yield
    except NothingLeftError:
        for path in made:
            if path.exists():
                shutil.rmtree(path)
        raise


def _refuse_other_settings(config: Config) -> None:
    """Everything but the machine and which files are good enough is the model's own."""
    default = ShardsConfig()
    shards = replace(
        config.shards,
        max_quarantined=default.max_quarantined,
        quiet_seconds=default.quiet_seconds,
    )
    split = replace(config.split, max_unmapped=SplitConfig().max_unmapped)
    if replace(config, runtime=RuntimeConfig(), shards=shards, split=split) != Config():
        raise ConfigError(
            "--set: expected shards.max_quarantined, shards.quiet_seconds, split.max_unmapped or a "
            "setting of runtime, got another one, which is fixed in the model. Leave it out."
        )


def _name(raw: Path) -> str:
    """What the page calls a data set: the last two folders of its path."""
    return "/".join(raw.resolve().parts[-2:]).lstrip("/")
