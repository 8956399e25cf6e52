"""The `pneumonia` command.

Exit status: 0 done; 1 the run failed; 2 the request was wrong. An expected failure is one line
on stderr; a traceback means a bug. Each command imports what it needs when it runs: `run` on an
unchanged workspace is done before torch would have been imported.
"""

import argparse
import logging
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from flows import console, embedded, retention
from pneumonia.config import MODELS, parse_settings
from pneumonia.errors import ConfigError, PneumoniaError
from pneumonia.workspace import Workspace

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


def main(arguments: Sequence[str] | None = None) -> int:
    """Carry out one command; returns its exit status."""
    options = parser().parse_args(arguments)
    command: Callable[[argparse.Namespace], int] = options.command
    console.set_up()
    try:
        return command(options)
    except PneumoniaError as error:
        return _fail(f"{type(error).__name__}: {error}", 2 if isinstance(error, ConfigError) else 1)
    except OSError as error:
        place = getattr(options, "workspace", None) if error.filename is None else None
        where = f"{place}: " if place else ""  # a full disk names no file
        told = f"{type(error).__name__}: {where}{error}"
        return _fail(f"{told}. Mend that and run again: nothing finished is lost.", 1)
    except KeyboardInterrupt:
        return _fail("Interrupted. Run again to go on: nothing finished is lost.", 130)


def run(options: argparse.Namespace) -> int:
    """Bring a run up to date."""
    asked = _asked(options)
    with embedded.prefect_api() as wait:
        from flows.pipeline import pipeline
        from flows.preflight import check
        from tasks.caching import Request

        check(Request(**asked), options.until)
        wait()
        pipeline(**asked, until=options.until)
    return 0


def simulate(options: argparse.Namespace) -> int:
    """Make a data set."""
    from pneumonia.simulate import simulate as make

    facts = make(options.folder, options.images, options.seed)
    _say(f"{options.folder}: {facts['images']:,} simulated images, {facts['positives']:,} positive")
    return 0


def predict(options: argparse.Namespace) -> int:
    """Predict new files with a finished model."""
    from flows.prediction import predict_paths
    from pneumonia.csv_files import write_rows

    folder = options.out.absolute().parent
    if not folder.is_dir() or not os.access(folder, os.W_OK) or options.out.is_dir():
        raise ConfigError(
            f"--out: expected a file in a folder that exists and can be written, got {options.out}."
        )
    with Workspace(options.workspace).in_use(make=False):
        table = predict_paths(
            options.paths,
            workspace=options.workspace,
            run=options.run,
            model=options.model,
            config=parse_settings(options.set),
            operating_point_given=any("operating_point" in setting for setting in options.set),
        )
    write_rows(table, options.out)
    refused = int(table["reason"].notna().sum())
    _say(f"{options.out}: {len(table) - refused:,} files predicted, {refused:,} refused")
    return 0


def compare(options: argparse.Namespace) -> int:
    """Put finished runs side by side."""
    from flows.comparison import compare_lines

    with Workspace(options.workspace).in_use(make=False):
        lines = compare_lines(options.runs, workspace=options.workspace, out=options.out)
    for line in lines:
        _say(line)
    if options.out is not None:
        _say(f"\nPage: {options.out}")
    return 0


def evaluate(options: argparse.Namespace) -> int:
    """Test a finished model, frozen, on another labelled data set."""
    asked = {
        name: getattr(options, name)
        for name in ("raw", "workspace", "model", "out", "persons", "by_image", "run")
    } | {"config": parse_settings(options.set)}
    with embedded.prefect_api() as wait, Workspace(options.workspace).in_use(make=False):
        from flows.external import external, prepare

        prepare(**asked)
        wait()
        external(**asked)
    return 0


def status(options: argparse.Namespace) -> int:
    """Say what is fresh and what is stale."""
    if options.disk:
        from flows.disk import disk_lines

        for line in disk_lines(options.workspace):
            _say(line)
        return 0
    from flows.status import status_lines

    if options.raw is None:
        raise ConfigError("status: expected --raw DIR, or --disk, got neither. Add one of them.")
    logging.getLogger("pneumonia").setLevel(logging.WARNING)  # a line a stage, and no other
    for line in status_lines(_asked(options)):
        _say(line)
    return 0


def verify(options: argparse.Namespace) -> int:
    """Hash every file of every artifact."""
    from flows.status import find_all_damage

    with Workspace(options.workspace).in_use(make=False):
        damage = list(find_all_damage(options.workspace))
    for sentence in damage:
        sys.stderr.write(f"{sentence}\n")
    _say(f"{len(damage):,} damaged files." if damage else "Every artifact is whole.")
    return 1 if damage else 0


def bench(options: argparse.Namespace) -> int:
    """Run one of the checkout's benchmarks."""
    scripts = {path.stem: path for path in sorted(BENCHMARKS.glob("*.py"))}
    if options.name not in scripts:
        raise ConfigError(
            f"bench: expected one of {', '.join(scripts) or 'the scripts of a checkout'}, got "
            f"{options.name!r}. They stand in {BENCHMARKS}."
        )
    script = [sys.executable, str(scripts[options.name]), *options.arguments]
    return subprocess.run(script, check=False).returncode  # noqa: S603 (a script of this project)


class _Command(argparse.ArgumentParser):
    """A command's arguments, which refuses one too many itself: its own usage is shown then."""

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:  # noqa: ANN401
        known, unknown = super().parse_known_args(args, namespace)
        if unknown:
            self.error(f"unrecognized arguments: {' '.join(unknown)}")
        return known, unknown


def parser() -> argparse.ArgumentParser:
    """All commands and their options."""
    whole = argparse.ArgumentParser(
        prog="pneumonia",
        description="Lung opacity on chest radiographs: from DICOM files to an honest report. "
        "For research; not a medical device.",
    )
    whole.add_argument("--version", action="version", version=version("pneumonia"))
    commands = whole.add_subparsers(required=True, metavar="COMMAND", parser_class=_Command)

    def command(function: Callable[[argparse.Namespace], int], text: str) -> Any:  # noqa: ANN401
        added = commands.add_parser(function.__name__, help=text, description=text)
        added.set_defaults(command=function)
        return added

    made = command(simulate, "make a data set in the challenge's layout, to try things on")
    made.add_argument("folder", type=Path, metavar="DIR")
    made.add_argument("--images", type=_count, default=800, metavar="N", help="default: 800")
    made.add_argument("--seed", type=int, default=0, metavar="S", help="default: 0")

    ran = command(run, "bring a run up to date: labels to report")
    _add_request(ran)
    ran.add_argument("--until", default="report", metavar="STAGE", help="the last stage")
    ran.add_argument(
        "--refresh", action="append", default=[], metavar="STAGE", help="make a stage anew"
    )
    ran.add_argument("--verify", action="store_true", help="hash all files before trusting them")

    predicted = command(predict, "predict new DICOM files with a finished model")
    predicted.add_argument("paths", type=Path, nargs="+", metavar="PATH", help="files or folders")
    predicted.add_argument("--workspace", type=Path, required=True, metavar="DIR")
    predicted.add_argument("--model", required=True, metavar="NAME")
    predicted.add_argument("--out", type=Path, required=True, metavar="FILE.csv")
    predicted.add_argument("--run", default="main", metavar="NAME", help="default: main")
    predicted.add_argument("--set", action="append", default=[], metavar="SECTION.FIELD=VALUE")

    compared = command(compare, "finished runs side by side: what moved, and for which run")
    compared.add_argument("runs", nargs="+", metavar="RUN", help="the first is the reference")
    compared.add_argument("--workspace", type=Path, required=True, metavar="DIR")
    compared.add_argument("--out", type=Path, metavar="FILE.html", help="the same as a page")

    tested = command(evaluate, "test a finished model, frozen, on another labelled data set")
    tested.add_argument("--raw", type=Path, required=True, metavar="OTHER", help="the other data")
    tested.add_argument("--workspace", type=Path, required=True, metavar="DIR", help="the model's")
    tested.add_argument("--model", required=True, metavar="NAME")
    tested.add_argument("--out", type=Path, required=True, metavar="DIR", help="for the report")
    tested.add_argument("--persons", type=Path, metavar="FILE", help="whose image is whose")
    tested.add_argument(
        "--by-image", action="store_true", help="take each image for a person of its own"
    )
    tested.add_argument("--run", default="main", metavar="NAME", help="default: main")
    tested.add_argument("--set", action="append", default=[], metavar="SECTION.FIELD=VALUE")

    stood = command(status, "say what is fresh, what is stale, and why; or where the space is")
    _add_request(stood, raw_required=False)
    stood.add_argument(
        "--disk", action="store_true", help="where the space is; needs --workspace only"
    )
    checked = command(verify, "hash every file of every artifact; writes nothing")
    checked.add_argument("--workspace", type=Path, required=True, metavar="DIR")

    retention.add_commands(command)

    measured = command(bench, "measure a claim about speed; the table goes to stdout")
    measured.add_argument("name", metavar="NAME", help="a script of benchmarks/")
    measured.add_argument(
        "arguments", nargs=argparse.REMAINDER, metavar="...", help="its own; --help lists them"
    )
    return whole


def _add_request(parser: argparse.ArgumentParser, *, raw_required: bool = True) -> None:
    parser.add_argument("--raw", type=Path, required=raw_required, metavar="DIR", help="the data")
    parser.add_argument("--workspace", type=Path, required=True, metavar="DIR")
    parser.add_argument("--persons", type=Path, metavar="FILE", help="whose image is whose")
    parser.add_argument(
        "--by-image",
        action="store_true",
        help="split by image: people leak, and where persons are known the report says how many",
    )
    parser.add_argument("--split-file", type=Path, metavar="CSV", help="patientId,split to obey")
    parser.add_argument("--models", default=",".join(MODELS), metavar="A,B", help=",".join(MODELS))
    parser.add_argument("--run", default="main", metavar="NAME", help="default: main")
    parser.add_argument("--set", action="append", default=[], metavar="SECTION.FIELD=VALUE")


def _asked(options: argparse.Namespace) -> dict[str, Any]:
    """The fields of a request, by name."""
    return {
        "raw": options.raw,
        "workspace": options.workspace,
        "persons": options.persons,
        "by_image": options.by_image,
        "split_file": options.split_file,
        "models": tuple(name.strip() for name in options.models.split(",") if name.strip()),
        "run": options.run,
        "config": parse_settings(options.set),
        "refresh": frozenset(getattr(options, "refresh", ())),
        "verify": getattr(options, "verify", False),
    }


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number of at least 1, got {text!r}")
    return int(text)


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")


def _fail(line: str, exit_status: int) -> int:
    sys.stderr.write(f"{console.printable(line)}\n")
    return exit_status


if __name__ == "__main__":
    sys.exit(main())
