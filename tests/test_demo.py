"""`make demo`, as the README promises it, and the same run again."""

import json
import subprocess
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[1]

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """Runs `make demo` twice; gives its folder and what both runs printed."""
    out = tmp_path_factory.mktemp("demo")
    printed = [
        subprocess.run(
            ["make", "-C", str(PROJECT), "demo", f"OUT={out}"],
            capture_output=True, text=True, timeout=1200, check=True,
        ).stdout
        for _ in range(2)
    ]  # fmt: skip
    return out, *printed


def test_the_demo_ends_with_the_path_of_its_report(demo):
    out, first, _ = demo
    report = out / "workspace" / "runs" / "main" / "report" / "report.html"
    assert f"Report: {report}" in first
    assert report.stat().st_size > 1e6


def test_both_models_learn_the_simulated_opacities_and_beat_the_header(demo):
    out, _, _ = demo
    file = out / "workspace" / "runs" / "main" / "evaluation" / "evaluation.json"
    evaluation = json.loads(file.read_text("utf-8"))
    auroc = {name: m["test"]["auroc"]["value"] for name, m in evaluation["models"].items()}
    control = evaluation["controls"]["metadata_only"]["test"]["auroc"]["value"]
    assert set(auroc) == {"custom_cnn", "resnet18"}
    assert auroc["resnet18"] >= 0.85
    assert control < auroc["resnet18"]


def test_the_demo_again_is_cached_from_end_to_end(demo):
    _, _, second = demo
    states = [line.split()[1] for line in second.splitlines() if " s  " in line]
    assert states == ["cached"] * 11
