"""Notes: what a finished stage has to show, as Markdown with its pictures inside.

`data_notes` and `model_notes` write one per stage from its artifact; `tasks.notes` leaves it in
Prefect's UI. Of what identifies an image only its image_id is told, and what comes from data is
escaped. No result depends on these modules, so a change of them makes no stage anew.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pneumonia.markdown import markdown_picture, markdown_table
from pneumonia.tables import Table, percent

if TYPE_CHECKING:  # drawing takes a second to import: only where a stage has run
    from pneumonia.pictures import Picture

logger = logging.getLogger(__name__)

MAX_PICTURE_BYTES = 200_000
"""Of one picture in Prefect's database."""


@dataclass(frozen=True)
class Note:
    """What a stage leaves in the UI.

    Args:
        markdown: the note itself.
        tables: beside it, to be sorted there; by the ending of their key.
        pictures: beside it, data URIs with a page of their own; by the ending of their key.
        links: beside it, addresses of pages; by the ending of their key.
    """

    markdown: str
    tables: Mapping[str, Table] = field(default_factory=dict)
    pictures: Mapping[str, str] = field(default_factory=dict)
    links: Mapping[str, str] = field(default_factory=dict)


def page(title: str, *parts: str) -> str:
    """Markdown under a title; empty parts are left out.

    >>> page("Labels", "", "26,684 images")
    '# Labels\\n\\n26,684 images'
    """
    return "\n\n".join([f"# {title}", *filter(None, parts)])


def section(title: str, *parts: str) -> str:
    """Markdown under a heading, or nothing where every part is empty.

    >>> section("Boxes", "")
    ''
    """
    return "\n\n".join([f"## {title}", *filter(None, parts)]) if any(parts) else ""


def fact_table(facts: Mapping[str, str]) -> str:
    """Named facts, one below the other."""
    return markdown_table([{"fact": name, "value": value} for name, value in facts.items()])


def share(part: int, whole: int) -> str:
    """A count as a share of another, a dash where that is 0.

    >>> share(1, 4), share(0, 0)
    ('25.0 %', '\N{EN DASH}')
    """
    return percent(part / whole if whole else None)


def shown(name: str, picture: "Picture") -> str:
    """A picture as Markdown, or, where it is too large for Prefect's database, its text."""
    if picture.size <= MAX_PICTURE_BYTES:
        return markdown_picture(picture.source, picture.alternative)
    told = "%s is left out of Prefect's artifacts: %d bytes, at most %d. The workspace has it."
    logger.warning(told, name, picture.size, MAX_PICTURE_BYTES)
    return "A picture is left out here: it is too large for Prefect's database."
