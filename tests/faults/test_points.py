"""Runs, `gc` and `evaluate` that are killed at the points where they change the workspace."""

import random
import re

import pytest
from harness import STAGES, finish, states

from pneumonia.artifacts import MANIFEST
from pneumonia.simulate import simulate

pytestmark = pytest.mark.e2e

SAMPLE, FEW = 5, 3
STAGE = re.compile(rf"(?:^|/|main-)({'|'.join((*STAGES, 'pool'))})(?=[/.-]|$)")


def before(point, faults, workspace):
    """A workspace as it was before the stage that passes a point; an empty one, if none does."""
    found = STAGE.search(point.split(" ", 2)[2])
    if found is None:
        return workspace
    return faults.copy(workspace, *{"pool": ("pool", "shards")}.get(found[1], (found[1],)))


def test_the_points_are_the_changes_of_every_stage(points):
    """Should the names change, the test below would kill nobody."""
    for stage in (*STAGES, "pool"):
        assert f"1 rename .state/{stage}/KEY/output" in points
        assert f"1 open .state/{stage}/KEY/output/manifest.json" in points
        assert f"1 fsync {stage}" in points
    assert sum(" symlink .state/links/" in point for point in points) == len(STAGES)
    assert any("open .state/training/KEY/resume" in point for point in points)


def test_killed_at_a_point_the_next_run_ends_the_same(faults, points, tmp_path, long, seed):
    chosen = points if long else random.Random(seed).sample(points, SAMPLE)  # noqa: S311
    for number, point in enumerate(chosen):
        workspace, once = before(point, faults, tmp_path / f"{number}"), tmp_path / f"{number}-once"
        process = faults.start(
            workspace, POINTS_OF=str(workspace), CRASH_AT=point, CRASH_ONCE=str(once)
        )
        told = faults.killed(process, point)
        faults.ends_equal("kill -9 at a point of change", workspace, told=f"{point}: {told}")


def test_gc_killed_at_a_point_nothing_needed_is_gone_and_the_next_run_ends_the_same(
    faults, tmp_path, long, seed, command
):
    """All of a run goes but its training, which is pinned."""
    asked = ["--drop-run", "main", "--older-than", "0", "--delete"]

    def pinned(workspace):
        faults.copy(workspace)
        [folder] = (workspace / "training").iterdir()
        kept = command("pin", f"training/{folder.name}", "--workspace", workspace)
        assert kept.returncode == 0, kept.stderr
        return workspace

    log = tmp_path / "log"
    whole = pinned(tmp_path / "whole")
    process = faults.command("gc", whole, *asked, POINTS_OF=str(whole), POINTS_LOG=str(log))
    output = finish(process)
    assert process.returncode == 0, output
    points = list(dict.fromkeys(log.read_text("utf-8").splitlines()))
    for stage in {*STAGES, "pool"} - {"training"}:
        assert f"1 remove {stage}/KEY/{MANIFEST}" in points
    faults.ends_equal("gc of a whole run", whole, told=output)
    chosen = points if long else random.Random(seed).sample(points, FEW)  # noqa: S311
    for number, point in enumerate(chosen):
        workspace, once = pinned(tmp_path / f"{number}"), tmp_path / f"{number}-once"
        process = faults.command(
            "gc", workspace, *asked, POINTS_OF=str(workspace), CRASH_AT=point, CRASH_ONCE=str(once)
        )
        told = faults.killed(process, point)
        output = faults.ends_equal("kill -9 of gc at a point", workspace, told=f"{point}: {told}")
        assert states(output)["training-custom_cnn"] == "cached", f"{point}: {output}"


def test_evaluate_killed_at_a_point_the_next_one_ends_the_same(faults, tmp_path, long, seed):
    """What it makes lies in a workspace of its own, inside the folder that was asked for."""
    raw = tmp_path / "raw"
    simulate(raw, 40, 2)

    def evaluate(out, **environment):
        asked = ["--raw", raw, "--model", "custom_cnn", "--out", out]
        asked += ["--set", "shards.quiet_seconds=0"]
        return faults.command("evaluate", faults.finished.workspace, *asked, **environment)

    def files(out):
        return {path.name: path.read_bytes() for path in out.iterdir() if path.is_file()}

    whole, log = tmp_path / "whole", tmp_path / "log"
    process = evaluate(whole, POINTS_OF=str(whole), POINTS_LOG=str(log))
    output = finish(process)
    assert process.returncode == 0, output
    points = list(dict.fromkeys(log.read_text("utf-8").splitlines()))
    assert sum(point.endswith("/copy.PROCESS") for point in points) >= 2 * len(files(whole))
    chosen = points if long else random.Random(seed).sample(points, FEW)  # noqa: S311
    for number, point in enumerate(chosen):
        out, once = tmp_path / f"{number}", tmp_path / f"{number}-once"
        process = evaluate(out, POINTS_OF=str(out), CRASH_AT=point, CRASH_ONCE=str(once))
        told = faults.killed(process, point)
        process = evaluate(out)
        output = finish(process)
        assert process.returncode == 0, f"{point}: {told}\nnext: {output}"
        assert files(out) == files(whole), f"{point}: {told}\nnext: {output}"
        faults.tally.append(("kill -9 of evaluate at a point", "equal"))
