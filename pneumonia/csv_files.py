"""A CSV file that people edit becomes a table of text, or a refusal that names the row.

Rows are counted as a spreadsheet shows them: the header is row 1, a blank line is a row, and a row
whose quoted value holds line breaks is one.
"""

import csv
import io
import os
import re
import stat
from collections.abc import Iterator, Sequence
from itertools import count
from pathlib import Path
from typing import Literal

import pandas as pd

from pneumonia.errors import DataError

MAX_BYTES = 1 << 26
"""Largest file of names that is read: thirty times the challenge's largest table."""

_COMPUTED = r"(?='*[=+\-@\t\r\n\uff1d\uff0b\uff0d\uff20])"
_FORMULA = re.compile(rf"(^|[;\t\r\n]){_COMPUTED}")
_QUOTED = re.compile(rf"(^|[;\t\r\n])'{_COMPUTED}")
"""What a spreadsheet computes instead of showing it, with any quotes that stand before it: where a
cell begins, and where one would to a spreadsheet that parts cells by semicolons or tabs."""


def read_rows(
    path: Path, required: Sequence[str], error: type[DataError], *, private: bool = False
) -> pd.DataFrame:
    """Read a CSV file with every value as the text it is.

    Args:
        required: columns that must be there; further ones are kept.
        error: what a refusal raises.
        private: the file names people, so a refusal of its first row, which may be no header,
            does not show it.

    Returns:
        The file's columns; the index is the row's number.

    Raises:
        DataError: as `error`: no readable file, not UTF-8, no row, a column missing or named
            twice, a row with more or fewer values than the header.
    """
    records = _records(path, error)
    _, header = next(records, (1, []))  # nothing behind a mark of UTF-8
    _check_header(path, header, required, error, private=private)
    rows: list[list[str]] = []
    numbers: list[int] = []
    for number, row in records:
        if not row:
            continue  # an empty line, as editors leave one at the end
        if len(row) != len(header):
            raise error(
                f"{path}: row {number}: expected {len(header)} values, got {len(row)}. "
                "Correct or remove the row."
            )
        rows.append(row)
        numbers.append(number)
    if not rows:
        raise error(f"{path}: expected rows below the header, got none. Restore the file.")
    return pd.DataFrame(rows, columns=header, index=numbers, dtype="str")


def read_header(path: Path, error: type[DataError]) -> list[str]:
    """Read the names of a CSV file's columns.

    Raises:
        DataError: as `error`: no readable file, or nothing in it.
    """
    return next(_records(path, error), (1, []))[1]


def write_rows(table: pd.DataFrame, path: Path) -> None:
    """Write a CSV file that may be opened in a spreadsheet: no text in it is a formula.

    Text that begins like a formula (`=`, `+`, `-`, `@` or the wide forms of these, a tab, a line
    break), or goes on so after a semicolon, a tab or a line break, gets a `'` there, which
    `unquoted` takes away again; numbers stay as they are.
    """
    text = table.select_dtypes(["object", "str", "category"]).columns
    shown = table.assign(**{name: table[name].map(_quoted, na_action="ignore") for name in text})
    # pandas does not quote a lone carriage return, which would end the row for whoever reads it.
    broken = any(shown[name].astype("str").str.contains("\r").any() for name in text)
    quoting: Literal[0, 2] = csv.QUOTE_NONNUMERIC if broken else csv.QUOTE_MINIMAL
    shown.to_csv(path, index=False, lineterminator="\n", quoting=quoting)


def unquoted(names: "pd.Series[str]") -> "pd.Series[str]":
    """The text that `write_rows` wrote, of what stands in its file.

    >>> unquoted(pd.Series(["'=1+1", "plain", "'quoted"])).tolist()
    ['=1+1', 'plain', "'quoted"]
    """
    return names.map(lambda name: _QUOTED.sub(r"\1", name))


def _quoted(value: object) -> object:
    return _FORMULA.sub(r"\1'", value) if isinstance(value, str) else value


def refuse_rows(
    path: Path,
    rows: pd.DataFrame,
    bad: "pd.Series[bool]",
    columns: Sequence[str],
    *,
    expected: str,
    cure: str,
    error: type[DataError],
) -> None:
    """Raise for the first bad row, if there is one.

    Args:
        rows: as `read_rows` gives them.
        bad: marks the rows to refuse.
        columns: whose values the message shows; it may be none.
        expected, cure: the message's own part.

    Raises:
        DataError: as `error`, with the row's number and its values.
    """
    found = int(bad.sum())
    if not found:
        return
    number = rows.index[bad][0]
    first = rows.loc[number]
    got = ", ".join(f"{column} {short(first[column])}" for column in columns) or "none such"
    more = f" ({found - 1:,} more such rows)" if found > 1 else ""
    raise error(f"{path}: row {number}: expected {expected}, got {got}{more}. {cure}")


def refuse_spaces(
    path: Path,
    rows: pd.DataFrame,
    columns: Sequence[str],
    error: type[DataError],
    *,
    shown: Sequence[str] | None = None,
) -> None:
    """Raise for the first row with nothing or a space at an end of a name.

    `7` and `7 ` would be two names to a table and one to whoever reads it.

    Args:
        shown: the columns whose values the message shows; all of `columns` by default.

    Raises:
        DataError: as `error`, with the row's number and its values.
    """
    bad = pd.concat([_is_ragged(rows[column]) for column in columns], axis=1).any(axis=1)
    refuse_rows(
        path,
        rows,
        bad,
        columns if shown is None else shown,
        expected=f"{' and '.join(columns)} with no space around",
        cure="Correct the value.",
        error=error,
    )


def _is_ragged(names: "pd.Series[str]") -> "pd.Series[bool]":
    return (names == "") | (names != names.str.strip())


def read_content(path: Path, kind: str, error: type[DataError]) -> bytes:
    """Read a file that somebody named.

    Args:
        kind: what it should be, for the message.

    Raises:
        DataError: as `error`, where there is no such file, it must not be read, is no regular
            file or has more than `MAX_BYTES`.
    """
    try:
        # A pipe would wait for its writer and a device never end, so neither is waited for.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    except ValueError as problem:  # a NUL in the name
        raise error(f"{str(path)!r}: expected {kind}, got {problem}. Name another.") from problem
    except (
        FileNotFoundError, NotADirectoryError, IsADirectoryError, PermissionError,
    ) as problem:  # fmt: skip
        raise error(
            f"{path}: expected {kind}, got: {problem.strerror}. Put it there or name another."
        ) from problem
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            got = "Is a directory" if stat.S_ISDIR(status.st_mode) else "no regular file"
            raise error(f"{path}: expected {kind}, got: {got}. Put it there or name another.")
        if status.st_size > MAX_BYTES:
            raise error(
                f"{path}: expected {kind} of at most {MAX_BYTES:,} bytes, got "
                f"{status.st_size:,}. Name another."
            )
        with os.fdopen(descriptor, "rb", closefd=False) as file:
            return file.read(MAX_BYTES)
    finally:
        os.close(descriptor)


def _records(path: Path, error: type[DataError]) -> Iterator[tuple[int, list[str]]]:
    """Every record with its row number; a blank line is an empty record."""
    content = read_content(path, "a CSV file", error)
    if not content.strip():
        raise error(f"{path}: expected rows, got an empty file. Restore the file.")
    # Excel writes the mark of UTF-8 first. What is not UTF-8 is told with its row, so it must live
    # until there are rows.
    text = content.decode("utf-8-sig", "surrogateescape")
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    for number in count(1):
        try:
            row = next(reader, None)
        except csv.Error as problem:
            raise error(
                f"{path}: row {number}: expected comma-separated values, got {problem}. "
                "Correct the row."
            ) from problem
        if row is None:
            return
        try:
            "".join(row).encode()
        except UnicodeEncodeError as problem:
            byte = ord(problem.object[problem.start]) - 0xDC00
            raise error(
                f"{path}: row {number}: expected UTF-8, got byte 0x{byte:02x}. "
                "Save the file as UTF-8."
            ) from problem
        yield number, row


def _check_header(
    path: Path,
    header: list[str],
    required: Sequence[str],
    error: type[DataError],
    *,
    private: bool,
) -> None:
    shown = f"{len(header)} columns" if private else short(", ".join(header))
    missing = [name for name in required if name not in header]
    if missing:
        raise error(
            f"{path}: row 1: expected the columns {', '.join(required)}, got "
            f"{shown}; missing {', '.join(missing)}. Correct the header."
        )
    repeated = sorted({name for name in header if header.count(name) > 1})
    if repeated:
        again = f"{len(repeated)} of them" if private else short(", ".join(repeated))
        raise error(
            f"{path}: row 1: expected every column once, got {again} again. Rename or remove it."
        )


def short(value: object) -> str:
    """A value from data as a sentence shows it: in quotes, escaped, and not too long."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:59]}…"
