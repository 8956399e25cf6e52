"""A CSV file that people edit becomes a table of text, or a refusal that names the row.

Rows are counted as a spreadsheet shows them: the header is row 1.
"""

import csv
import io
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from pneumonia.errors import DataError


def read_rows(path: Path, required: Sequence[str], error: type[DataError]) -> pd.DataFrame:
    """Read a CSV file with every value as the text it is.

    Args:
        required: columns that must be there; further ones are kept.
        error: what a refusal raises.

    Returns:
        The file's columns; the index is the row's number.

    Raises:
        DataError: as `error`: no readable file, not UTF-8, no row, a column missing or named
            twice, a row with more or fewer values than the header.
    """
    reader = csv.reader(io.StringIO(_read_text(path, error), newline=""), strict=True)
    header: list[str] = []
    rows: list[list[str]] = []
    numbers: list[int] = []
    try:
        header = next(reader, [])
        _check_header(path, header, required, error)
        for row in reader:
            if not row:
                continue  # an empty line, as editors leave one at the end
            if len(row) != len(header):
                raise error(
                    f"{path}: row {reader.line_num}: expected {len(header)} values, "
                    f"got {len(row)}. Correct or remove the row."
                )
            rows.append(row)
            numbers.append(reader.line_num)
    except csv.Error as problem:
        raise error(
            f"{path}: row {reader.line_num}: expected comma-separated values, got {problem}. "
            "Correct the row."
        ) from problem
    if not rows:
        raise error(f"{path}: expected rows below the header, got none. Restore the file.")
    return pd.DataFrame(rows, columns=header, index=numbers, dtype="str")


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
        columns: whose values the message shows.
        expected, cure: the message's own part.

    Raises:
        DataError: as `error`, with the row's number and its values.
    """
    count = int(bad.sum())
    if not count:
        return
    number = rows.index[bad][0]
    first = rows.loc[number]
    got = ", ".join(f"{column} {_short(first[column])}" for column in columns)
    more = f" ({count - 1:,} more such rows)" if count > 1 else ""
    raise error(f"{path}: row {number}: expected {expected}, got {got}{more}. {cure}")


def read_content(path: Path, kind: str, error: type[DataError]) -> bytes:
    """Read a file that somebody named.

    Args:
        kind: what it should be, for the message.

    Raises:
        DataError: as `error`, where there is no such file or it must not be read.
    """
    try:
        return path.read_bytes()
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError, PermissionError) as problem:
        raise error(
            f"{path}: expected {kind}, got: {problem.strerror}. Put it there or name another."
        ) from problem


def _read_text(path: Path, error: type[DataError]) -> str:
    content = read_content(path, "a CSV file", error)
    if not content.strip():
        raise error(f"{path}: expected rows, got an empty file. Restore the file.")
    try:
        return content.decode("utf-8-sig")  # Excel writes the mark of UTF-8 first
    except UnicodeDecodeError as problem:
        row = content.count(b"\n", 0, problem.start) + 1
        raise error(
            f"{path}: row {row}: expected UTF-8, got byte 0x{content[problem.start]:02x}. "
            "Save the file as UTF-8."
        ) from problem


def _check_header(
    path: Path, header: list[str], required: Sequence[str], error: type[DataError]
) -> None:
    missing = [name for name in required if name not in header]
    if missing:
        raise error(
            f"{path}: row 1: expected the columns {', '.join(required)}, got "
            f"{_short(', '.join(header))}; missing {', '.join(missing)}. Correct the header."
        )
    repeated = sorted({name for name in header if header.count(name) > 1})
    if repeated:
        raise error(
            f"{path}: row 1: expected every column once, got {_short(', '.join(repeated))} again. "
            "Rename or remove it."
        )


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:59]}…"
