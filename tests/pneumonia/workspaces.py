"""Workspaces made by hand, for tests of what stays in them."""

import pandas as pd

from pneumonia.artifacts import Manifest, Reference, digest, write_table

STAGES = ("pool", "labels", "shards", "training")


def reference(stage, name):
    """The artifact of a stage that a test calls `name`."""
    return Reference(stage, digest([stage, name]))


def make(workspace, stage, name, write=None, configuration=None):
    """A complete artifact, of one file of 100 bytes where a test has nothing better."""
    made = reference(stage, name)

    def one_file(scratch):
        (scratch.output / "file").write_bytes(b"x" * 100)
        return {}

    manifest = Manifest(stage, made.key, 1, {}, configuration or {})
    with workspace.lock(made) as lock:
        workspace.build(manifest, write or one_file, lock=lock)
    return made


def make_pool(workspace, name, image_ids, refused=(), configuration=None):
    """A pool shard of these images, and of files that were refused."""
    rows = pd.DataFrame({"image_id": [*image_ids, *refused]})
    rows["file_digest"] = "digest of " + rows["image_id"]
    rows["reason"] = [None] * len(image_ids) + ["truncated"] * len(refused)

    def write(scratch):
        write_table(rows, scratch.output / "rows.parquet")
        return {}

    return make(workspace, "pool", name, write, configuration)


def make_shards(workspace, name, pool, refused=(), configuration=None):
    """A table whose images stand in these pool shards, with these files in quarantine."""
    images = pd.DataFrame({"pool": [shard.key for shard in pool]})
    quarantine = pd.DataFrame({"image_id": list(refused)}, dtype="str")
    quarantine["file_digest"] = "digest of " + quarantine["image_id"]

    def write(scratch):
        write_table(images, scratch.output / "images.parquet")
        write_table(quarantine, scratch.output / "quarantine.parquet")
        return {}

    return make(workspace, "shards", name, write, configuration)


def snapshot(folder):
    """Every file, link and folder below a folder, with what would change if it were written."""
    return {
        path: (path.lstat().st_mtime_ns, path.lstat().st_ino, path.lstat().st_size)
        for path in [folder, *folder.rglob("*")]
    }
