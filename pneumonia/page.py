"""Pages: single HTML files that need nothing else, from the templates beside this module.

In: a template's name and its values. Out: HTML. Everything is escaped unless a template says
otherwise, and a value that a template names and nobody gave is an error. This is Jinja's one door.
"""

from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from pneumonia import tables


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
        "parts": tables.parts,
    }
    return environment.get_template(template).render(values)
