import subprocess
import sys

import pytest

from pneumonia import machine
from pneumonia.config import parse
from pneumonia.errors import ConfigError
from pneumonia.machine import Gpu, select_gpus

LISTING = """\
0, GPU-a1b2, NVIDIA H200, 143771, 9.0
1, GPU-a1c3, Tesla T4, 15360, 7.5
2, GPU-d4, NVIDIA A100, [N/A], [N/A]
"""
H200 = Gpu("NVIDIA H200", 143771 << 20, bf16=True)
T4 = Gpu("Tesla T4", 15360 << 20, bf16=False)
UNTOLD = Gpu("NVIDIA A100", 0, bf16=False)


@pytest.fixture
def driver(tmp_path, monkeypatch):
    """An `nvidia-smi` first on the path, that prints what it is given."""
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")

    def install(listing, status=0):
        tool = tmp_path / "nvidia-smi"
        tool.write_text(f"#!/bin/sh\nprintf '%s' '{listing}'\nexit {status}\n")
        tool.chmod(0o755)
        machine._listing.cache_clear()

    return install


@pytest.mark.parametrize(
    ("visible", "expected"),
    [
        (None, [H200, T4, UNTOLD]),
        ("1", [T4]),
        ("1,0", [T4, H200]),
        ("GPU-a1c", [T4]),
        ("0,7,1", [H200]),  # CUDA stops at the first it does not find
        ("-1", []),
        ("MIG-3f", [Gpu("a slice of a GPU", 0, bf16=True)]),
    ],
)
def test_select_gpus_obeys_cuda_visible_devices(visible, expected):
    assert select_gpus(LISTING, visible) == expected


def test_gpus_are_those_the_driver_lists(driver, monkeypatch):
    driver(LISTING)
    assert machine.gpus() == [H200, T4, UNTOLD]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert machine.gpus() == []


def test_gpus_of_a_broken_driver_are_none_and_that_is_told(driver, caplog):
    driver("driver/library version mismatch", status=18)
    assert machine.gpus() == []
    assert "nvidia-smi is installed but told of no GPU" in caplog.text


@pytest.mark.parametrize(
    ("listing", "asked", "expected"),
    [
        ("0, GPU-a1b2, NVIDIA H200, 143771, 9.0\n", "auto", "bf16"),
        ("1, GPU-a1c3, Tesla T4, 15360, 7.5\n", "auto", "32"),
        ("", "auto", "32"),
        ("0, GPU-a1b2, NVIDIA H200, 143771, 9.0\n", "32", "32"),
        ("", "bf16", "bf16"),
    ],
)
def test_resolve_precision(driver, listing, asked, expected):
    driver(listing)
    config = parse({"training": {"precision": asked}})
    assert machine.resolve_precision(config) == expected


def test_resolve_precision_on_the_cpu_of_a_machine_with_a_gpu_is_32(driver):
    driver(LISTING)
    assert machine.resolve_precision(parse({"runtime": {"accelerator": "cpu"}})) == "32"


def test_resolve_accelerator_takes_a_gpu_where_there_is_one(driver):
    driver(LISTING)
    assert machine.resolve_accelerator(parse({})) == "gpu"
    driver("")
    assert machine.resolve_accelerator(parse({})) == "cpu"


def test_resolve_accelerator_without_the_gpu_asked_for_raises(driver):
    driver("")
    with pytest.raises(ConfigError, match=r"got none. Set runtime.accelerator=cpu"):
        machine.resolve_accelerator(parse({"runtime": {"accelerator": "gpu"}}))


@pytest.mark.parametrize(
    ("quota", "expected"), [("max 100000", None), ("150000 100000", 2), ("20000 100000", 1)]
)
def test_cores_counts_a_containers_share(tmp_path, quota, expected):
    file = tmp_path / "cpu.max"
    available = machine.cores(file)  # no such file
    file.write_text(quota + "\n")
    assert machine.cores(file) == min(available, expected or available)


def test_workers_are_the_cores_unless_said():
    assert machine.workers(parse({})) == machine.cores()
    assert machine.workers(parse({"runtime": {"workers": 3}})) == 3


@pytest.mark.parametrize("module", ["machine", "trainer_process", "child_process"])
def test_module_does_without_torch(module):
    """A cached run must not pay for the import, nor the process that waits for a training."""
    code = f"import sys, pneumonia.{module}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
