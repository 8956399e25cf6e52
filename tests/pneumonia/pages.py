"""The report's page, written from small inputs and read back."""

from html.parser import HTMLParser

import numpy as np
import pandas as pd

from pneumonia.duplicates import COLUMNS as DUPLICATE_COLUMNS
from pneumonia.figures import cam_panel
from pneumonia.localisation import MEASURES
from pneumonia.report import write_report

NASTY = '<script>alert("x")</script>'

ONE_SEED = {"value": None, "low": None, "high": None, "reason": "the maps are of one training"}


class Page(HTMLParser):
    """Tags with their attributes, and the text."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.text = [], ""
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_data(self, data):
        self.text += data


def make_sanity(*, passed=True):
    """A check whose maps with a random head are as far off as those of another image."""
    layers = [{"randomised": "head", "ssim": 0.31}, {"randomised": "stem", "ssim": 0.05}]
    pairs = 0.3 if passed else 0.04
    return {
        "images": 16, "layers": layers, "random_pairs": pairs, "passed": passed, "reason": None
    }  # fmt: skip


def make_cams(folder, models):
    rng = np.random.default_rng(0)
    cams = {}
    for model in models:
        place = folder / model
        place.mkdir()
        image = rng.integers(0, 255, (32, 32)).astype(np.uint8)
        heat = rng.normal(size=(32, 32)).astype(np.float32)
        (place / "01.png").write_bytes(cam_panel(image, heat, np.zeros((0, 4)), (-1, 1)))
        measures = {
            name: {"value": 0.5, "low": 0.4, "high": 0.6, "reason": None} for name in MEASURES
        }
        panel = {
            "file": "01.png", "image_id": NASTY, "outcome": "false positive",
            "probability": 0.7, "boxes": 0,
        }  # fmt: skip
        cams[model] = (
            {**measures, "model": model, "n": 30, "threshold": 0.4, "constant_map": measures,
             "difference": measures, "defined": dict.fromkeys(MEASURES, 30) | {"cnr": 27},
             "sanity": make_sanity(), "cells": [8, 8], "repeatability": ONE_SEED,
             "panels": [panel], "scale": [-1, 1]},
            place,
        )  # fmt: skip
    return cams


def render(output, evaluation, studies, predictions, **replaced):
    histories = {
        model: pd.DataFrame(
            {
                "epoch": [1, 2, 3],
                "train_loss": [0.7, 0.5, 0.4],
                "val_loss": [0.7, 0.55, 0.6],
                "val_auroc": [0.6, 0.8, 0.79],
                "learning_rate": [1e-3, 1e-3, 1e-4],
            }
        )
        for model in predictions
    }
    given = {
        "run": "main",
        "evaluation": evaluation,
        "cams": make_cams(output, predictions),
        "histories": histories,
        "predictions": predictions,
        "studies": studies,
        "quarantine": pd.DataFrame(
            {"file": [NASTY], "image_id": ["x"], "reason": ["truncated"], "detail": [NASTY]}
        ),
        "duplicates": pd.DataFrame(
            [(NASTY, "test", "b", "train", "near", 0.97)], columns=list(DUPLICATE_COLUMNS)
        ),
        "samples": (np.zeros((2, 32, 32), np.uint8), studies.head(2).assign(view=NASTY)),
        "errors": {
            model: (
                np.zeros((1, 32, 32), np.uint8),
                studies.head(1).assign(view=NASTY, probability=0.9, outcome="false positive"),
            )
            for model in predictions
        },
        "split_digest": "0123abcd" * 8,
        "lineage": [{"stage": "labels", "model": None, "key": "0123abcd", "version": 1}],
        "configuration": {"training": {"seed": 0, "weights": NASTY}},
    } | replaced
    facts = write_report(output, **given)
    return facts, (output / "report.html").read_text("utf-8")
