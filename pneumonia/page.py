"""Pages: single HTML files that need nothing else, from the templates beside this module.

In: a template's name and its values. Out: HTML. Everything is escaped unless a template says
otherwise, and a value that a template names and nobody gave is an error. This is Jinja's one door.
"""

import re
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from pneumonia import tables

_FIGURE = re.compile(
    r"([-+.\d]+)"
    r"(?: \(([-+.\d]+ to [-+.\d]+|no interval)\))?"
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
        "percent": tables.percent,
        "count": tables.count,
        "parts": parts,
    }
    return environment.get_template(template).render(values)


def parts(cell: str) -> tuple[str, list[str]]:
    """A told figure as its value and what stands small below it; any other text whole.

    >>> parts("0.881 (0.852 to 0.907), defined on 21 of 23")
    ('0.881', ['0.852 to 0.907', 'defined on 21 of 23'])
    >>> parts("3 (of 4)")
    ('3 (of 4)', [])
    """
    found = _FIGURE.fullmatch(cell)
    return (found[1], [text for text in found.groups()[1:] if text]) if found else (cell, [])
