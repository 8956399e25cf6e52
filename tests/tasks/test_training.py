"""What a pipeline that sends its trainings elsewhere takes for the training that it asks for."""

from dataclasses import replace

from flows.stages import walk
from pneumonia.artifacts import Reference, read_manifest, write_manifest
from pneumonia.config import parse
from tasks.caching import Request, manifest_of
from tasks.training import TRAINING


def planned(pipeline, settings):
    """The manifest of the training that a run would ask for now."""
    request = Request(
        raw=pipeline.raw, workspace=pipeline.workspace, config=parse(settings),
        models=("custom_cnn",),
    )  # fmt: skip
    found = []

    def visit(stage, contexts):
        if stage is TRAINING:
            found.append(manifest_of(TRAINING, TRAINING.plan(contexts[0])))
            return [None]
        return [Reference(stage.name, pipeline.linked(stage.name).name)]

    walk(request, TRAINING.name, visit)
    return found[0]


def test_what_the_last_machine_resolved_is_asked_for_with_new_images_too(finished, tmp_path, small):
    copy = finished.copy(tmp_path)
    sent = {**small, "runtime": {"dispatch": "deployments"}}
    assert planned(copy, sent).configuration["precision"] == "32"
    folder = copy.linked("training-custom_cnn")
    manifest = read_manifest(folder)
    elsewhere = {**manifest.configuration, "precision": "bf16"}
    other = {"train and val images": "of a smaller folder"}
    write_manifest(replace(manifest, configuration=elsewhere, inputs=other), folder)
    assert planned(copy, sent).configuration["precision"] == "bf16"
    assert planned(copy, small).configuration["precision"] == "32"  # in this process
    steeper = {**sent, "training": {**small["training"], "learning_rate": 0.01}}
    assert planned(copy, steeper).configuration["precision"] == "32"  # another training
