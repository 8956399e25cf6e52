"""Templates: filled in strictly, escaped, and all of the report's in its key."""

from pathlib import Path

import pytest
from jinja2 import Environment, UndefinedError, meta

from pneumonia import page
from tasks.report import TEMPLATES

FOLDER = Path(page.__file__).parent


def reached(template):
    """A template and all that it extends, includes or imports."""
    tree = Environment(autoescape=True).parse((FOLDER / template).read_text("utf-8"))
    found = {template}
    for name in meta.find_referenced_templates(tree):
        found |= reached(name)
    return found


def test_the_key_of_the_report_holds_every_template_it_is_made_from():
    assert set(TEMPLATES) == reached("report.html")


def test_every_template_is_reached_from_a_page():
    assert {path.name for path in FOLDER.glob("*.html")} == reached("report.html") | reached(
        "comparison.html"
    )


def test_render_escapes_values():
    values = {"runs": [], "points": [], "cautions": ["<b>&"], "pairs": [], "simulated": ""}
    text = page.render("comparison.html", reference="<i>", **values)
    assert "&lt;b&gt;&amp;" in text
    assert "<i>" not in text


def test_render_without_a_value_is_an_error():
    with pytest.raises(UndefinedError, match="reference"):
        page.render("comparison.html")


def test_table_tells_each_reason_once_below_itself():
    saturated = "1.000 (no interval: the same at both its ends (7 of 7))"
    rows = [
        {"group": "AP", "sensitivity": saturated, "specificity": "0.9 (no interval: 4 <i>)"},
        {"group": "PA", "sensitivity": saturated, "specificity": "0.900 (0.800 to 0.950)"},
    ]
    values = {"runs": rows, "points": [], "cautions": [], "pairs": [], "simulated": ""}
    text = page.render("comparison.html", reference="main", **values)
    below = "No interval: (a) the same at both its ends (7 of 7); (b) 4 &lt;i&gt;."
    assert text.count(below) == 1
    assert text.count("<small>no interval (a)</small>") == 2
    assert text.count("<small>no interval (b)</small>") == 1
    assert "<span>0.900 <small>0.800 to 0.950</small></span>" in text
