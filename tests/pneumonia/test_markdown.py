"""What comes from data is shown as it was written, and does nothing."""

import pytest

from pneumonia.markdown import escaped, markdown_picture, markdown_table

markdown = pytest.importorskip("markdown_it")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("a|b", "a\\|b"),
        ("`c`", "\\`c\\`"),
        ("<script>x</script>", "&lt;script&gt;x&lt;/script&gt;"),
        ("a & b", "a &amp; b"),
        ("one\ntwo\r\n three", "one two three"),
        ("custom_cnn", "custom_cnn"),
        ("_a_ __b__", "\\_a\\_ \\_\\_b\\_\\_"),
        ("[x](y)", "\\[x\\](y)"),
        ("back\\slash", "back\\\\slash"),
        ("http://x", "http:\\//x"),
        ("a\x00b\u202ec", "a\N{REPLACEMENT CHARACTER}b\N{REPLACEMENT CHARACTER}c"),
    ],
)
def test_text_is_escaped(text, told):
    assert escaped(text) == told


@pytest.mark.parametrize(
    "text",
    [
        "a|b",
        "`c`",
        "<script>alert(1)</script>",
        "_a_",
        "**b**",
        "[x](http://y)",
        "&lt;",
        "\\|",
        "~~s~~",
    ],
)
def test_a_reader_of_markdown_shows_a_cell_as_it_was_written(text):
    table = markdown_table([{"name": text, "next": "2"}])
    tokens = markdown.MarkdownIt("commonmark").enable(["table", "strikethrough"]).parse(table)
    cells = [token for token in tokens if token.type == "inline"]
    assert len(cells) == 4
    shown = cells[2].children
    assert {token.type for token in shown} <= {"text", "text_special"}
    assert "".join(token.content for token in shown) == text


def test_a_table_keeps_its_columns_and_without_rows_is_nothing():
    told = markdown_table([{"a|b": "<b>\n|"}])
    assert told == "| a\\|b |\n| --- |\n| &lt;b&gt; \\| |"
    assert markdown_table([]) == ""


def test_a_picture_cannot_be_left_by_its_text():
    assert markdown_picture("data:x", "a](b)") == "![a\\](b)](data:x)"
