"""The page of refusals quotes what the program says, and leaves none out."""

import re
from pathlib import Path

import pytest

from error_messages import GAP, LEAST, matches, messages

PAGE = Path(__file__).parents[1] / "docs" / "troubleshooting.md"
FOUND = messages()
ROWS = [line.split(" | ") for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith("| `")]
QUOTES = [quote for row in ROWS for quote in re.findall(r"`([^`]+)`", row[0])]

OF_PLUGINS = ("layout/", "plugins/", "description/", "plan/by_huggingface.py", "plan/joined.py")
"""Where a mistake of a plugin is said, which its author meets; the page of plugins is about them."""
OF_TESTS = ("testing/",)
"""What only tests of plugins can raise."""
COUNTS = f"{GAP}: {GAP} faults"
"""What stands above a list of faults."""


def is_of_users(message):
    return not message.where.startswith((*OF_PLUGINS, *OF_TESTS)) and message.text != COUNTS


def test_errors_are_found_in_the_source():
    assert len(FOUND) > 200
    assert any(message.text.endswith("no such option") for message in FOUND)


@pytest.mark.parametrize("quote", QUOTES)
def test_quoted_text_is_what_the_program_says(quote):
    assert sum(map(str.isalpha, quote)) >= LEAST, "too short to be found"
    assert any(matches(quote, message) for message in FOUND), quote


def test_every_refusal_is_on_the_page():
    missing = [
        message.shown for message in filter(is_of_users, FOUND) if not any(matches(quote, message) for quote in QUOTES)
    ]
    assert missing == []


def test_every_row_says_what_to_do():
    assert all(len(row) == 2 and len(row[1]) > 20 for row in ROWS)


def test_every_section_of_the_page_has_rows():
    sections = re.split(r"(?m)^## ", PAGE.read_text(encoding="utf-8"))[1:]
    assert len(sections) >= 8
    assert all("\n| `" in section for section in sections)
