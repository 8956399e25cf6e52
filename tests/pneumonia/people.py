"""Tables of images and their people, as `make_split` takes them."""

import numpy as np
import pandas as pd

from pneumonia.config import SplitConfig
from pneumonia.split import make_split


def make_tables(n_images, n_people, seed=0):
    """Labels, boxes, images and persons: every third image positive, people drawn at random."""
    ids = [f"image-{number:05d}" for number in range(n_images)]
    target = np.arange(n_images) % 3 == 0
    labels = pd.DataFrame({"image_id": ids, "target": target, "class": None})
    boxes = pd.DataFrame({"image_id": labels.loc[target, "image_id"]}).assign(
        x=10.0, y=20.0, width=100.0, height=200.0
    )
    people = np.random.default_rng(seed).integers(n_people, size=n_images)
    persons = pd.DataFrame({"image_id": ids, "person": [f"{person:05d}" for person in people]})
    return labels, boxes, make_images(ids), persons


def make_images(ids, side=1024):
    return pd.DataFrame({"image_id": ids}).assign(
        view="PA", sex="F", age=50.0, spacing=0.143, rows=side, columns=side,
        scale=0.25, offset_x=0.0, offset_y=0.0,
    )  # fmt: skip


def split_tables(tables, *, config=None, split_file=None, **options):
    labels, boxes, images, persons = tables
    return make_split(
        labels,
        boxes,
        images,
        persons=persons,
        split_file=split_file,
        config=config or SplitConfig(),
        **options,
    )
