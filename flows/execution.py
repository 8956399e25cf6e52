"""Stages carried out within a flow: files converted, trainings sent, lines told, events emitted."""

import logging
from dataclasses import dataclass, field

from flows import events
from flows.conversion import convert_new_files
from flows.dispatch import dispatch
from flows.stages import stage_line
from pneumonia.artifacts import Reference
from pneumonia.errors import QuarantineError
from tasks.caching import Context, Outcome, Stage
from tasks.evaluation import EVALUATION
from tasks.shards import SHARDS
from tasks.training import TRAINING

logger = logging.getLogger("flows.execution")  # a worker may load this file under another name


@dataclass
class Execution:
    """What a flow run has done so far.

    Args:
        outcomes: by link name (`labels`, `training-resnet18`), in the order of work.
        sent: trainings that other workers have done for it.
        images: how many were converted.
    """

    outcomes: dict[str, Outcome] = field(default_factory=dict)
    sent: list[str] = field(default_factory=list)
    images: int = 0

    def visit(self, stage: Stage, contexts: list[Context]) -> list[Reference]:
        """Carry out a stage for all its members (`flows.stages.walk` asks for it)."""
        if stage is TRAINING and contexts[0].request.config.runtime.dispatch == "deployments":
            contexts, self.sent = dispatch(contexts)
        return [self._carry_out(stage, context) for context in contexts]

    def summary(self) -> str:
        """What this flow run did, for the state that it ends in."""
        ran = [name for name, outcome in self.outcomes.items() if not outcome.cached]
        cached = len(self.outcomes) - len(ran) - len(self.sent)
        if not ran and not self.sent:
            return f"nothing has changed: {cached} cached"
        told = [f"{self.images:,} new images"] if self.images else []
        told += [f"ran {', '.join(ran)}"] if ran else []
        told += [f"had {', '.join(self.sent)} trained"] if self.sent else []
        told += [f"{cached} cached"] if cached else []
        return "; ".join(told)

    def _carry_out(self, stage: Stage, context: Context) -> Reference:
        run = context.request.run
        try:
            if stage is SHARDS:
                self.images += convert_new_files(context)
            outcome = stage.run(context)
        except QuarantineError as error:
            events.tell(events.OVER_LIMIT, run, str(error))
            raise
        name = stage.link_name(context.member)
        self.outcomes[name] = outcome
        logger.info("%s", stage_line(name, stage, outcome))
        if stage is EVALUATION:
            _tell_below_gate(context, outcome.reference)
        return outcome.reference


def _tell_below_gate(context: Context, reference: Reference) -> None:
    """Warn of a model that is worse on test than `runtime.min_auroc` asks."""
    gate, run = context.request.config.runtime.min_auroc, context.request.run
    if not gate:
        return
    models = context.workspace.get(reference).json("evaluation.json")["models"]
    for model in context.request.models:
        auroc = models[model]["test"]["auroc"]["value"]
        if auroc is not None and auroc < gate:
            told = (
                f"{model}: AUROC {auroc:.3f} on test is below the gate, runtime.min_auroc={gate:g}."
            )
            logger.warning("%s", told)
            events.tell(events.BELOW_GATE, run, told, model=model, auroc=auroc, gate=gate)
