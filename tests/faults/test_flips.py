"""Single bits that flip in a finished workspace: `verify` finds them, `run --verify` mends them."""

import random
from itertools import groupby

import pytest
from harness import finish, states

from flows.status import find_all_damage
from pneumonia.workspace import Workspace

pytestmark = pytest.mark.e2e

BATCH = 10


def flip(path, chance):
    """Flip one bit of a file."""
    data = bytearray(path.read_bytes())
    place = chance.randrange(len(data) * 8)
    data[place // 8] ^= 1 << place % 8
    path.write_bytes(data)


def files(workspace):
    """All files of artifacts, by artifact."""
    folders = map(Workspace(workspace).path, Workspace(workspace).references())
    found = sorted(path for folder in folders for path in folder.rglob("*") if path.is_file())
    return {folder: list(group) for folder, group in groupby(found, lambda path: path.parent)}


def stamps(workspace):
    """Everything that a writer would change."""
    return {
        path: (path.lstat().st_mtime_ns, path.lstat().st_size, path.lstat().st_ino)
        for path in [workspace, *workspace.rglob("*")]
    }


def test_flipped_bits_are_all_named_and_mended(faults, tmp_path, command, long, seed):
    chance = random.Random(seed)  # noqa: S311 (no secret)
    workspace = faults.copy(tmp_path / "workspace")
    for _ in range(20 if long else 1):
        by_artifact = files(workspace)
        chosen = chance.sample(sorted(by_artifact), BATCH)  # one each: none hides another
        flipped = [chance.choice(by_artifact[folder]) for folder in chosen]
        for path in flipped:
            flip(path, chance)
        before = stamps(workspace)
        verified = command("verify", "--workspace", workspace)
        assert verified.returncode == 1, verified.stdout
        assert stamps(workspace) == before
        told = sorted(line.partition(": ")[0] for line in verified.stderr.splitlines())
        assert told == sorted(map(str, flipped))
        faults.ends_equal("ten flipped bits, run --verify", workspace, "--verify")
        faults.tally += [("a flipped bit", "equal")] * BATCH


@pytest.mark.parametrize(
    ("damaged", "made"),
    [
        ("pool/*/images.npy", {"pool"}),
        ("training/*/checkpoint.ckpt", {"training-custom_cnn"}),
        ("split/*/split.csv", {"split"}),
        ("report/*/record.json", {"report"}),
    ],
)
def test_run_verify_makes_the_damaged_piece_and_no_other(faults, tmp_path, seed, damaged, made):
    workspace = faults.copy(tmp_path / "workspace")
    flip(min(workspace.glob(damaged)), random.Random(seed))  # noqa: S311
    output = faults.ends_equal(f"a flipped bit in {damaged}", workspace, "--verify")
    assert {name for name, state in states(output).items() if state == "ran"} == made, output


@pytest.mark.parametrize(
    ("damaged", "stage"),
    [
        ("pool/*/images.npy", "training"),
        ("pool/*/rows.parquet", "shards"),
        ("training/*/checkpoint.ckpt", "predictions"),
        ("predictions/*/predictions.parquet", "evaluation"),
        ("cam/*/cam.json", "report"),
    ],
)
def test_damaged_bytes_are_refused_at_their_first_use_and_the_cure_helps(
    faults, tmp_path, seed, damaged, stage
):
    """Without --verify a hit is trusted by size; its bytes are looked at before they are used."""
    workspace = faults.copy(tmp_path / "workspace", stage)
    path = min(workspace.glob(damaged))
    flip(path, random.Random(seed))  # noqa: S311
    process = faults.start(workspace)
    output = finish(process)
    fault = f"a flipped bit in {damaged}, used by {stage}"
    faults.ended_by_error(fault, process, output, str(path), "--verify")
    faults.ends_equal(fault, workspace, "--verify", told=output)
    assert list(find_all_damage(workspace)) == []
