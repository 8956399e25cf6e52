"""The pipeline: every stage in order, as one Prefect flow."""

import logging

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.states import Completed

from flows import parameters as asked
from flows.console import tell_stages
from flows.deployments import name_run
from flows.execution import Execution
from flows.preflight import check, needs
from flows.stages import walk
from pneumonia.config import MODELS, Config
from pneumonia.workspace import Workspace
from tasks.caching import Request
from tasks.report import REPORT

logger = logging.getLogger("flows.pipeline")  # a worker may load this file under another name


@flow(
    name="pipeline",
    description="Bring a run up to date: do what its inputs and settings need, and nothing else.",
    flow_run_name=name_run,
    persist_result=False,
)
@asked.described
def pipeline(
    raw: asked.Raw,
    workspace: asked.Workspace,
    persons: asked.Persons = None,
    by_image: asked.ByImage = False,
    split_file: asked.SplitFile = None,
    models: asked.Models = MODELS,
    run: asked.Run = "main",
    config: asked.Config = Config(),  # noqa: B008 (frozen)
    until: asked.Until = "report",
    refresh: asked.Refresh = frozenset(),
    verify: asked.Verify = False,
) -> State[str]:
    """Bring a run up to date: do what its inputs and settings need, and nothing else.

    Raises:
        PneumoniaError: whatever a stage found wrong, as it said it.
    """
    tell_stages()
    request = Request(
        raw=raw,
        workspace=workspace,
        config=config,
        run=run,
        models=models,
        persons=persons,
        by_image=by_image,
        split_file=split_file,
        refresh=frozenset(refresh),
        verify=verify,
    )
    check(request, until)
    logger.info("%s", needs(request, until))

    work = Execution()
    with Workspace(workspace).in_use():
        references = walk(request, until, work.visit)
    if REPORT.name in references:
        logger.info("Report: %s", workspace / "runs" / run / REPORT.name / "report.html")
    return Completed(message=work.summary(), data=work.summary())
