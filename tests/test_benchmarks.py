"""The benchmarks of what feeds and times a training run, and count right what needs no GPU."""

import importlib
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn.functional import affine_grid, grid_sample

from pneumonia import augment
from pneumonia.pool import ImagePool

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture
def script(monkeypatch):
    """A benchmark as a module."""
    monkeypatch.syspath_prepend(BENCHMARKS)
    return importlib.import_module


def rows(text):
    """The first cells of all tables."""
    lines = [line.split(" | ") for line in text.splitlines() if line.startswith("| ")]
    return [cells[0].strip("| ") for cells in lines]


@pytest.mark.slow
def test_bench_feeding_sets_this_beside_a_notebook(command):
    small = ["--images", "32", "--side", "32", "--batch", "8", "--rounds", "1", "--workers", "1"]
    done = command("bench", "feeding", *small)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("32 px to crops of 28, batches of 8, ")
    names = {"notebook style, 0 workers", "notebook style, 1 workers", "this, 1 threads"}
    assert names | {"affine_grid, grid_sample a batch", "its gather alone"} < set(rows(done.stdout))
    assert "Asked: 10 times the notebook style, 0 workers; got " in done.stdout


@pytest.mark.slow
@pytest.mark.skipif(torch.cuda.is_available(), reason="measures more where there is a GPU")
@pytest.mark.parametrize("more", [[], ["--cpu"]], ids=["wall", "cpu"])
def test_bench_training_sets_this_beside_a_bare_loop(command, more):
    small = ["--model", "custom_cnn", "--side", "28", "--batch", "8", "--images", "16"]
    done = command("bench", "training", *small, "--rounds", "1", "--workers", "1", *more)
    assert done.returncode == 0, done.stderr
    told = rows(done.stdout)
    assert {"bare loop, inputs prepared", "this, with Lightning", "the same by hand"} < set(told)
    assert f"bare loop, fed by notebook style, {0 if more else 1} workers" in told
    assert "Asked of Lightning: at most 1.0 ms a step; got " in done.stdout
    assert "Asked of this: 0.95 of the bare loop; got " in done.stdout


def test_bench_verify_sets_the_command_beside_one_core(command):
    done = command("bench", "verify", "--shards", "2", "--images", "3")
    assert done.returncode == 0, done.stderr
    assert rows(done.stdout) == ["", "one core", "`pneumonia verify`"]
    assert "Asked: 1.0 GB/s on two cores; got " in done.stdout


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_bench_gpu_without_one_says_so(command):
    done = command("bench", "gpu")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("bench gpu: expected a GPU that torch can use, got none.")


@pytest.mark.e2e
def test_bench_pipeline_times_every_stage(command):
    small = ["--images", "160", "--epochs", "1", "--side", "32", "--set", "cam.n_images=2"]
    fractions = ["--set", "split.val_fraction=0.25", "--set", "split.test_fraction=0.25"]
    done = command("bench", "pipeline", *small, *fractions)
    assert done.returncode == 0, done.stderr
    assert rows(done.stdout)[:4] == ["stage", "`labels`", "`pool`", "`shards`"]
    assert rows(done.stdout)[-3:] == ["`report`", "the rest", "**total**"]
    assert "The same again, nothing to do: " in done.stdout


def test_affine_grid_is_given_the_same_crops(script):
    changes = augment.draw(np.random.default_rng(0), 4, side=64, crop=56, strength=1.0, flip=True)
    images = torch.from_numpy(np.random.default_rng(1).integers(0, 256, (4, 64, 64), np.uint8))
    theta = torch.from_numpy(script("feeding").theta_of(changes, 64, 56)).float()
    grid = affine_grid(theta, [4, 1, 56, 56], align_corners=False)
    sampled = grid_sample(images[:, None].float(), grid, align_corners=False).squeeze(1)
    ours = augment.warp_tensor(images, torch.from_numpy(changes.matrices).float(), 56)
    assert (sampled - ours).abs().max() < 0.02


def test_work_of_a_training_step_is_counted_an_image(script):
    gpu, cpu = script("gpu"), torch.device("cpu")
    assert gpu.operations_an_image("resnet18", 224) == pytest.approx(10.3e9, rel=0.01)
    half, whole = (gpu.bytes_an_image("custom_cnn", 64, bits, cpu) for bits in ("bf16", "32"))
    assert whole / 2 <= half < whole


def test_back_ends_agree_to_half_a_grey_level(script, tmp_path):
    studies = script("feeding").make_pool(tmp_path, 16, 64)
    gpu = script("gpu")
    pool = ImagePool(tmp_path / "pool", studies)
    assert 0 < gpu.difference(pool, 56, torch.device("cpu")) <= gpu.LARGEST_DIFFERENCE
