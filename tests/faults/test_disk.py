"""Disks that are full, over quota, read-only or failing, at every file that a run writes."""

import errno
import os
import random
import re
import subprocess
from contextlib import contextmanager
from pathlib import Path

import pytest
from harness import STAGES, finish, start, states

pytestmark = pytest.mark.e2e

ALWAYS, ONCE = 0, 1


@pytest.fixture
def shim(library):
    """Environment in which a call of the C library fails at a place."""
    if library is None:
        pytest.skip("no C compiler `cc` to build the preloaded shim with")

    def environment(call, place, number, times=ALWAYS):
        return {
            "LD_PRELOAD": str(library), "SHIM_CALL": call, "SHIM_PLACE": place,
            "SHIM_ERRNO": str(number), "SHIM_TIMES": str(times),
        }  # fmt: skip

    return environment


@contextmanager
def mounted(*arguments):
    """A file system mounted for a while; skips where this process may not."""
    mount = subprocess.run(["mount", *map(str, arguments)], check=False, capture_output=True)
    if mount.returncode:
        pytest.skip(f"this process may not mount: {mount.stderr.decode().strip()}")
    try:
        yield Path(arguments[-1])
    finally:
        subprocess.run(["umount", str(arguments[-1])], check=True)


def writers(points):
    """Every file that a run writes into its workspace, as a pattern, and the stage it is of."""
    found = {}
    for point in points:
        change, place = point.split(" ", 2)[1:]
        file = re.fullmatch(r"\.state/(\w+)/KEY/(?:output|resume)/[^/]+", place)
        if file and change in {"open", "fsync"}:
            found["/" + re.escape(place).replace("KEY", "[0-9a-f]{32}")] = file[1]
    found[r"/\.state/\.files\.parquet\.[0-9]+"] = "shards"
    found[r"/\.state/batches/[0-9a-f]{32}-[0-9a-f]{32}\.[0-9]+"] = "shards"
    return {pattern.replace(r"\-", "-"): stage for pattern, stage in sorted(found.items())}


def fresh(faults, workspace, stage):
    """A workspace whose next run writes all files of a stage."""
    also = {"pool": ("pool", "shards"), "shards": ("pool", "shards")}.get(stage, (stage,))
    return faults.copy(workspace, *also)


def test_every_writer_meets_a_full_disk_or_a_quota(faults, points, shim, tmp_path, long, seed):
    chance = random.Random(seed)  # noqa: S311 (no secret)
    found = writers(points)
    assert set(found.values()) == {*STAGES, "pool"}
    for number, place in enumerate(found if long else chance.sample(sorted(found), 2)):
        workspace = fresh(faults, tmp_path / f"{number}", found[place])
        full = (errno.ENOSPC, errno.EDQUOT)[number % 2]
        process = faults.start(workspace, **shim("write", place, full))
        output = finish(process)
        fault = f"{errno.errorcode[full]} at a writer"
        faults.ended_by_error(fault, process, output, os.strerror(full), "run again")
        faults.ends_equal(fault, workspace, told=f"{place}: {output}")


def test_a_disk_that_fails_once_is_tried_again(faults, points, shim, tmp_path, long, seed):
    chance = random.Random(seed)  # noqa: S311 (no secret)
    found = writers(points)
    chosen = chance.sample(sorted(found), 8 if long else 1)
    for number, place in enumerate(chosen):
        workspace = fresh(faults, tmp_path / f"{number}", found[place])
        call = ("write", "sync")[number % 2] if "output" in place else "write"
        process = faults.start(workspace, **shim(call, place, errno.EIO, ONCE))
        output = finish(process)
        faults.is_equal("EIO once", workspace, process.returncode, f"{place}: {output}")
        faults.tally.append(("EIO once, tried again by the same run", "equal"))


@pytest.mark.parametrize(
    ("call", "place", "number"),
    [
        ("rename", r"/\.state/split/[0-9a-f]{32}/output", errno.ENOSPC),
        ("mkdir", r"/\.state/split/[0-9a-f]{32}", errno.EDQUOT),
        ("symlink", r"/\.state/links/main-split", errno.ENOSPC),
        ("open", r"/\.state/split/[0-9a-f]{32}/output/manifest\.json", errno.EROFS),
        ("sync", r"/\.state/split/[0-9a-f]{32}/output/manifest\.json", errno.ENOSPC),
    ],
)
def test_every_kind_of_call_that_fails_ends_in_an_error_and_loses_nothing(
    faults, shim, tmp_path, call, place, number
):
    workspace = fresh(faults, tmp_path / "workspace", "split")
    process = faults.start(workspace, **shim(call, place, number))
    output = finish(process)
    fault = f"{errno.errorcode[number]} at {call}"
    faults.ended_by_error(fault, process, output, os.strerror(number), "run again")
    faults.ends_equal(fault, workspace, told=output)


def test_a_disk_that_fills_up_ends_a_run_and_room_lets_it_go_on(faults, tmp_path, long, seed):
    chance = random.Random(seed)  # noqa: S311 (no secret)
    for _ in range(6 if long else 1):
        disk = tmp_path / "disk"
        disk.mkdir(exist_ok=True)
        with mounted("-t", "tmpfs", "-o", "size=40m", "tmpfs", disk):
            workspace, ballast = disk / "workspace", disk / "ballast"
            room = chance.randrange(100_000, 4_000_000)
            workspace.mkdir()
            ballast.write_bytes(bytes(41_943_040 - room))
            process = faults.start(workspace)
            output = finish(process)
            fault = "a tmpfs that fills up"
            faults.ended_by_error(fault, process, output, os.strerror(errno.ENOSPC), "run again")
            assert str(workspace) in output.splitlines()[-1], output
            assert output.count("[Errno") == 1, output
            ballast.unlink()
            faults.ends_equal(fault, workspace, told=f"{room} bytes: {output}")


def test_a_read_only_workspace_serves_what_is_finished_and_refuses_the_rest(faults, tmp_path):
    workspace = faults.copy(tmp_path / "workspace")
    with mounted("--bind", workspace, workspace), remounted_read_only(workspace):
        served = faults.start(workspace)
        output = finish(served)
        faults.is_equal("read-only", workspace, served.returncode, output)
        assert set(states(output).values()) == {"cached"}, output
        refused = faults.start(workspace, "--refresh", "split")
        output = finish(refused)
        faults.ended_by_error("read-only", refused, output, os.strerror(errno.EROFS), "run again")
    faults.ends_equal("read-only", workspace, told=output)


def test_a_workspace_that_belongs_to_others_serves_and_refuses_alike(finished, faults, tmp_path):
    """Rights on files do not hold for root, so its processes here are those without that power."""
    workspace = faults.copy(tmp_path / "workspace")
    folders = [workspace, *(path for path in workspace.rglob("*") if path.is_dir())]
    under = []
    if os.geteuid() == 0:
        under = ["setpriv", "--bounding-set=-dac_override,-dac_read_search", "--inh-caps=-all"]
    closed = tmp_path / "closed"
    closed.mkdir(0o555)
    try:
        tried = subprocess.run([*under, "touch", closed / "file"], check=False, capture_output=True)
    except FileNotFoundError:
        pytest.skip("no `setpriv` to give up what root may")
    if tried.returncode == 0:
        pytest.skip("this process may write anywhere and cannot give that up")
    for folder in folders:
        folder.chmod(0o555)
    try:
        served = start(finished.raw, workspace, under=under)
        output = finish(served)
        faults.is_equal("of others", workspace, served.returncode, output)
        assert set(states(output).values()) == {"cached"}, output
        refused = start(finished.raw, workspace, "--refresh", "split", under=under)
        output = finish(refused)
        fault = "a workspace of others"
        faults.ended_by_error(fault, refused, output, os.strerror(errno.EACCES), "run again")
    finally:
        for folder in folders:
            folder.chmod(0o755)
    faults.ends_equal(fault, workspace, told=output)


@contextmanager
def remounted_read_only(place):
    subprocess.run(["mount", "-o", "remount,bind,ro", str(place)], check=True)
    yield
    subprocess.run(["mount", "-o", "remount,bind,rw", str(place)], check=True)


def test_verify_names_a_file_that_cannot_be_read_and_goes_on(faults, shim, tmp_path, command):
    workspace = faults.copy(tmp_path / "workspace")
    split = min(workspace.glob("split/*/split.csv"))
    split.write_bytes(b"altered" + split.read_bytes()[7:])
    environment = os.environ | shim("read", r"/training/[0-9a-f]{32}/checkpoint\.ckpt", errno.EIO)
    verified = command("verify", "--workspace", workspace, env=environment)
    assert verified.returncode == 1, verified.stdout
    altered, unread = sorted(verified.stderr.splitlines())
    assert altered.startswith(f"{split}: its bytes have changed"), verified.stderr
    assert re.search(r"checkpoint\.ckpt: cannot be read: Input/output error", unread)
    faults.tally.append(("EIO while verify reads", "error"))
