"""What the report's task chooses to show."""

import pandas as pd

from tasks.report import ERRORS_PER_KIND, choose_errors


def test_errors_are_those_of_test_by_how_sure_the_model_was():
    studies = pd.DataFrame(
        {
            "image_id": list("abcdef"),
            "split": ["test"] * 5 + ["val"],
            "target": [True, False, False, True, True, False],
        }
    )
    predictions = pd.DataFrame(
        {"image_id": list("fedcba"), "probability": [0.99, 0.2, 0.1, 0.5, 0.9, 0.8]}
    )
    chosen = choose_errors(studies, predictions, 0.5)
    assert chosen["image_id"].tolist() == ["b", "c", "d", "e"]
    assert chosen["outcome"].tolist() == ["false positive"] * 2 + ["false negative"] * 2
    assert chosen["probability"].tolist() == [0.9, 0.5, 0.1, 0.2]


def test_no_more_errors_than_are_shown_and_none_where_there_are_none():
    studies = pd.DataFrame(
        {"image_id": [f"{i:02d}" for i in range(20)], "split": "test", "target": False}
    )
    sure = studies[["image_id"]].assign(probability=[i / 20 for i in range(20)])
    assert len(choose_errors(studies, sure, 0.0)) == ERRORS_PER_KIND
    assert choose_errors(studies, sure, 0.99).empty
