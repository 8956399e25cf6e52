"""One stage by itself, on what the run has: a flow per stage, for a deployment each.

`labels` and `split`, which take seconds, are brought up to date on the way. What takes longer is
not started here: a stale one is used as it is, with a warning, and a missing one names the
deployment to run first.
"""

import logging
from dataclasses import replace
from typing import Any

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.flows import Flow
from prefect.states import Completed

from flows import parameters as asked
from flows.console import tell_stages
from flows.deployments import name_run, sibling
from flows.execution import Execution
from flows.installation import check_same, installation
from flows.preflight import check
from flows.stages import walk
from flows.status import state_of
from pneumonia.artifacts import Reference
from pneumonia.config import MODELS, Config
from pneumonia.errors import ConfigError
from pneumonia.workspace import Workspace
from tasks.caching import Context, Request, Stage
from tasks.cam import CAM
from tasks.evaluation import EVALUATION
from tasks.labels import LABELS
from tasks.predictions import PREDICTIONS
from tasks.report import REPORT
from tasks.shards import SHARDS
from tasks.split import SPLIT
from tasks.training import TRAINING

logger = logging.getLogger("flows.single")  # a worker may load this file under another name

BROUGHT_ALONG = (LABELS, SPLIT)
"""Stages upstream that are brought up to date on the way: they read tables and take seconds."""


def _flow_of(stage: Stage, description: str) -> Flow[..., Any]:
    """The flow of one stage, for all models that are asked for."""

    @flow(
        name=stage.name,
        description=description,
        flow_run_name=name_run,
        persist_result=False,
    )
    @asked.described
    def run_stage(
        raw: asked.Raw,
        workspace: asked.Workspace,
        persons: asked.Persons = None,
        by_image: asked.ByImage = False,
        split_file: asked.SplitFile = None,
        models: asked.Models = MODELS,
        run: asked.Run = "main",
        config: asked.Config = Config(),  # noqa: B008 (frozen)
        refresh: asked.Anew = False,
        verify: asked.Verify = False,
    ) -> State[str]:
        """Run one stage by itself, on what the run has."""
        request = Request(
            raw=raw,
            workspace=workspace,
            config=config,
            run=run,
            models=models,
            persons=persons,
            by_image=by_image,
            split_file=split_file,
            refresh=frozenset({stage.name} if refresh else ()),
            verify=verify,
        )
        return carry_out(stage, request)

    return run_stage


labels = _flow_of(LABELS, "Read the challenge's two CSV files.")
shards = _flow_of(SHARDS, "Convert new and changed DICOM files.")
split = _flow_of(SPLIT, "Deal people into train, val and test.")
predictions = _flow_of(PREDICTIONS, "Predict val and test, calibrate, choose thresholds on val.")
evaluation = _flow_of(EVALUATION, "Every figure of test, with its interval over people.")
cam = _flow_of(CAM, "Class activation maps, scored against the boxes beside a control.")
report = _flow_of(REPORT, "Write the report of what the run has.")


@flow(
    name=TRAINING.name,
    description="Fit one model on train; the epoch is chosen on val.",
    flow_run_name=name_run,
    persist_result=False,
)
@asked.described
def training(
    raw: asked.Raw,
    workspace: asked.Workspace,
    model: asked.Model,
    persons: asked.Persons = None,
    by_image: asked.ByImage = False,
    split_file: asked.SplitFile = None,
    run: asked.Run = "main",
    config: asked.Config = Config(),  # noqa: B008 (frozen)
    refresh: asked.Anew = False,
    verify: asked.Verify = False,
    seed: asked.Seed = None,
    sender: asked.Installation = None,
) -> State[str]:
    """Train one model, here; a pipeline that dispatches sends its trainings to this flow."""
    if sender is not None:
        check_same(sender, installation(), where="The run that sent this training")
    here = replace(config, runtime=replace(config.runtime, dispatch="in_process"))
    request = Request(
        raw=raw,
        workspace=workspace,
        config=here,
        run=run,
        models=(model,),
        persons=persons,
        by_image=by_image,
        split_file=split_file,
        refresh=frozenset({TRAINING.name} if refresh else ()),
        verify=verify,
    )
    return carry_out(TRAINING, request, seed=seed)


def carry_out(stage: Stage, request: Request, *, seed: int | None = None) -> State[str]:
    """Run one stage on the run's artifacts.

    Args:
        seed: only this one of the seeds, for `training`.

    Returns:
        The flow run's state, whose message says what was done and what is stale.

    Raises:
        ConfigError: what it reads is missing, with the deployment to run first.
        PneumoniaError: whatever the stage found wrong.
    """
    tell_stages()
    check(request, stage.name)
    work, stale = Execution(), list[str]()

    def visit(each: Stage, contexts: list[Context]) -> list[Reference | None]:
        if each is stage:
            return _of_seed(seed, each, contexts, work)
        if each in BROUGHT_ALONG:
            return [*work.visit(each, contexts)]
        return [_upstream(stage, each, context, stale) for context in contexts]

    with Workspace(request.workspace).in_use():
        walk(request, stage.name, visit)
    told = "; ".join([work.summary(), *stale])
    return Completed(message=told, data=told)


def _of_seed(
    seed: int | None, stage: Stage, contexts: list[Context], work: Execution
) -> list[Reference | None]:
    """Carry the stage out for all its members, or for those of one seed."""
    first = contexts[0].request.config.training.all_seeds[0]
    asked_for = None if seed == first else seed
    chosen = [each for each in contexts if seed is None or each.seed == asked_for]
    if not chosen:
        seeds = contexts[0].request.config.training.all_seeds
        raise ConfigError(
            f"seed: expected one of training.seeds ({', '.join(map(str, seeds))}), got {seed}."
        )
    made = dict(zip([each.member for each in chosen], work.visit(stage, chosen), strict=True))
    return [made.get(each.member) for each in contexts]


def _upstream(wanted: Stage, stage: Stage, context: Context, stale: list[str]) -> Reference:
    """What the run has of a stage upstream, fresh or not; says which, and warns of a stale one."""
    request, name = context.request, stage.link_name(context.member)
    state, told, reference = state_of(stage, context)
    if reference is not None:
        context.workspace.link(request.run, name, reference)
        logger.info("%-28s used     %s", name, told)
        return reference
    reference = context.workspace.linked(request.run, name)
    artifact = reference and context.workspace.find(reference, hashed=request.verify)
    if reference is None or artifact is None:
        got = "none" if reference is None else "a damaged one"
        raise ConfigError(
            f"{wanted.name}: expected {name} of the run {request.run!r}, got {got}. Run the "
            f"deployment first that makes it: prefect deployment run '{sibling(stage.name)}'"
        )
    why = told if state == "stale" else f"{state} {told}"
    stale.append(f"{name} is stale ({why})")
    logger.warning(
        "%s is stale: %s. %s is used as it is; the deployment %s brings all up to date.",
        name, why, reference, sibling("pipeline"),
    )  # fmt: skip
    return reference
