"""A pool shard for tests, whole with its manifest."""

import numpy as np

from pneumonia.artifacts import Manifest, list_files, write_manifest, write_record
from pneumonia.pool import IMAGES


def write_shard(folder, images):
    folder.mkdir(parents=True)
    np.save(folder / IMAGES, images)
    manifest = Manifest(
        stage="pool", key=folder.name, version=1, inputs={}, configuration={},
        files=list_files(folder),
    )  # fmt: skip
    write_record({}, folder)
    write_manifest(manifest, folder)
