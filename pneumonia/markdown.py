"""Markdown: text that keeps to itself whatever it holds, tables, and pictures.

In: text from data, tables of text, pictures as data URIs. Out: Markdown in which a pipe, a
backtick, a tag, a link or a line end from the data is seen as it was written, and does nothing.
"""

import re

from pneumonia.tables import Table

_MARKS = re.compile(
    r"[\\`*\[\]|~#]"  # code, emphasis, links, cells, headings
    r"|(?<![^\W_])_|_(?![^\W_])"  # an underscore inside a word is none: `custom_cnn`
    r"|(?<=:)/(?=/)|(?<=www)\.|@"  # addresses, which some readers make links of
)


def escaped(text: str) -> str:
    """Text from data as Markdown that shows it, on one line; what is not printable is marked.

    >>> print(escaped("a|b `c` <script> custom_cnn"))
    a\\|b \\`c\\` &lt;script&gt; custom_cnn
    """
    line = " ".join(text.split())
    seen = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in line)
    tags = seen.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return _MARKS.sub(lambda mark: f"\\{mark[0]}", tags)


def markdown_table(rows: Table) -> str:
    """A table as Markdown, its headings and cells escaped; nothing where it has no row."""
    if not rows:
        return ""
    cells = [[escaped(cell) for cell in row.values()] for row in rows]
    lines = [[escaped(name) for name in rows[0]], ["---"] * len(rows[0]), *cells]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def turned(rows: Table) -> Table:
    """A table on its side, for one that is wider than a page: its first column becomes the heading.

    >>> turned([{"map": "resnet18", "IoU": "0.3"}, {"map": "constant map", "IoU": "0.2"}])
    [{'map': 'IoU', 'resnet18': '0.3', 'constant map': '0.2'}]
    """
    if not rows:
        return []
    heading, *names = rows[0]
    return [{heading: name} | {row[heading]: row[name] for row in rows} for name in names]


def markdown_picture(source: str, alternative: str) -> str:
    """A picture as Markdown.

    Args:
        source: a data URI.
        alternative: what it shows, for those who do not see it.
    """
    return f"![{escaped(alternative)}]({source})"
