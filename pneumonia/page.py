"""Pages: single HTML files that need nothing else, from the templates beside this module.

In: a template's name and its values. Out: HTML. Everything is escaped unless a template says
otherwise, and a value that a template names and nobody gave is an error. This is Jinja's one door.
"""

import re
from pathlib import Path
from string import ascii_lowercase
from typing import NamedTuple

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from pneumonia import tables

_FIGURE = re.compile(
    r"([-+.\d]+)"
    r"(?: \(([-+.\d]+ to [-+.\d]+|no interval(?:: .+)?)\))?"
    r"(?:, (defined on [\d,]+ of [\d,]+))?"
)


def render(template: str, **values: object) -> str:
    """Fill in a template.

    Args:
        template: name of a file in this folder; `report.html` extends `page.html`, say.
        values: what it names.
    """
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "value": tables.value,
        "tell": tables.tell,
        "percent": tables.percent,
        "count": tables.count,
        "laid_out": laid_out,
    }
    return environment.get_template(template).render(values)


class Cell(NamedTuple):
    """A cell of a table: its text, and what stands small below it."""

    text: str
    below: list[str]


def laid_out(rows: tables.Table) -> tuple[list[dict[str, Cell]], list[str]]:
    """A table's cells, and why some of its figures have no interval.

    A reason is told once, below the table, with a letter that its cells carry.

    >>> cells, notes = laid_out([{"PPV": "0.881 (0.852 to 0.907), defined on 21 of 23"}])
    >>> cells[0]["PPV"]
    Cell(text='0.881', below=['0.852 to 0.907', 'defined on 21 of 23'])
    >>> cells, notes = laid_out([{"PPV": "1.000 (no interval: 9 to resample)", "n": "3 (of 4)"}])
    >>> cells[0]["PPV"], cells[0]["n"], notes
    (Cell(text='1.000', below=['no interval (a)']), Cell(text='3 (of 4)', below=[]), \
['(a) 9 to resample'])
    """
    letters: dict[str, str] = {}
    cells = [{name: _cell(text, letters) for name, text in row.items()} for row in rows]
    return cells, [f"({letter}) {reason}" for reason, letter in letters.items()]


def _cell(text: str, letters: dict[str, str]) -> Cell:
    """A told figure in its parts, any other text whole; `letters` gains its reason."""
    found = _FIGURE.fullmatch(text)
    if not found:
        return Cell(text, [])
    below = [part for part in found.groups()[1:] if part]
    what, _, reason = below[0].partition(": ") if below else ("", "", "")
    if reason:
        turn, place = divmod(len(letters), len(ascii_lowercase))
        letter = letters.setdefault(reason, f"{ascii_lowercase[place]}{turn or ''}")
        below[0] = f"{what} ({letter})"
    return Cell(found[1], below)
