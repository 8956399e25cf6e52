"""What a whole run costs, stage by stage: simulated films to the report.

    pneumonia bench pipeline [--images 400] [--epochs 2] [--side 256] [--films DIR] [--set A.B=C]

Films are simulated first, which is not counted, and are in the page cache; then `pneumonia run`
does everything in a process of its own, both models, from random weights, and once more with
nothing to do. Seconds are those of its own lines. The rest is the start of Python, of Prefect's
API and the search for new files. --set hands a setting on; --films keeps the films for another
time.

Asked: 26,684 films in 120 s with 16 cores and a GPU.
"""

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from pneumonia.machine import cores, gpus
from pneumonia.simulate import simulate

STAGE = re.compile(r"(\S+) +(ran|cached) +([\d.]+) s  (.*)")


def main() -> None:
    arguments = _arguments()
    sys.stdout.reconfigure(line_buffering=True)  # minutes of work is told as it comes
    with tempfile.TemporaryDirectory() as scratch:
        raw = (arguments.films or Path(scratch)) / f"{arguments.images}"
        started = time.perf_counter()
        simulate(raw, arguments.images, 0)
        simulated = time.perf_counter() - started
        gpu = ", ".join(each.name for each in gpus()) or "no GPU"
        print(f"{arguments.images:,} films (simulated in {simulated:.0f} s), {arguments.side} px, "
              f"{arguments.epochs} epochs, {cores()} of {os.cpu_count()} cores, {gpu}, load "
              f"{os.getloadavg()[0]:.1f}")  # fmt: skip
        tell(*_run(raw, Path(scratch) / "workspace", arguments))
        seconds, _ = _run(raw, Path(scratch) / "workspace", arguments)
        print(f"\nThe same again, nothing to do: {seconds:.1f} s.")


def tell(seconds: float, stages: list[tuple[str, float, str]]) -> None:
    print("\n| stage | s | |\n|---|---|---|")
    for name, spent, told in stages:
        print(f"| `{name}` | {spent:.1f} | {told} |")
    print(f"| the rest | {seconds - sum(spent for _, spent, _ in stages):.1f} | |")
    print(f"| **total** | **{seconds:.1f}** | |")


def _run(
    raw: Path, workspace: Path, arguments: argparse.Namespace
) -> tuple[float, list[tuple[str, float, str]]]:
    """One run: its wall time, and each stage's seconds and half line."""
    settings = ["shards.quiet_seconds=0", f"shards.image_size={arguments.side}"]
    settings += ["training.weights=none", f"training.epochs={arguments.epochs}", *arguments.set]
    words = [sys.executable, "-m", "flows.cli", "run", "--raw", raw, "--workspace", workspace]
    words += [word for setting in settings for word in ("--set", setting)]
    started = time.perf_counter()
    done = subprocess.run(words, stdout=subprocess.PIPE, text=True, check=False)
    seconds = time.perf_counter() - started
    if done.returncode:
        sys.exit(f"{done.stdout}the run ended with status {done.returncode}")
    found = [STAGE.fullmatch(line) for line in done.stdout.splitlines()]
    return seconds, [(match[1], float(match[3]), match[4]) for match in found if match]


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=400)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--side", type=int, default=256 if gpus() else 128, help="as stored")
    parser.add_argument("--films", type=Path, help="where the simulated films are kept, if at all")
    parser.add_argument("--set", action="append", default=[], metavar="SECTION.FIELD=VALUE")
    return parser.parse_args()


if __name__ == "__main__":
    main()
