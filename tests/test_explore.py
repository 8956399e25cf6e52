"""The notebook of docs/ runs from top to bottom on a finished workspace."""

import json
from pathlib import Path

import numpy as np
import pytest

NOTEBOOK = Path(__file__).parents[1] / "docs" / "explore.ipynb"


def cells():
    content = json.loads(NOTEBOOK.read_text("utf-8"))
    return ["".join(cell["source"]) for cell in content["cells"] if cell["cell_type"] == "code"]


@pytest.fixture(scope="module")
def explored(finished):
    """What the notebook's cells leave behind."""
    names = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WORKSPACE", str(finished.workspace))
        patch.setenv("MPLBACKEND", "agg")
        for number, source in enumerate(cells()):
            exec(compile(source, f"cell {number}", "exec"), names)  # noqa: S102 (our own notebook)
    yield names
    names["plt"].close("all")


def test_the_notebook_shows_samples_figures_and_maps(explored):
    assert len(explored["samples"].axes) == 8
    assert list(explored["figures"].columns) == ["custom_cnn"]
    assert explored["figures"].loc["auroc"].str.contains(r"0\.\d{3} \[").all()
    assert len(explored["looked"].axes) == 4


def test_its_maps_sum_to_the_logits_that_were_predicted(explored):
    known = explored["chosen"]["logit"].to_numpy()
    np.testing.assert_allclose(explored["logits"], known, rtol=0, atol=1e-4)


def test_the_notebook_holds_no_output():
    content = json.loads(NOTEBOOK.read_text("utf-8"))
    code = [cell for cell in content["cells"] if cell["cell_type"] == "code"]
    assert len(code) >= 5
    assert all(not cell["outputs"] and cell["execution_count"] is None for cell in code)
