"""The page of promises names tests that exist."""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "docs" / "security.md").read_text(encoding="utf-8")


def names_of_tests():
    for path in [*ROOT.glob("tests/test_*.py"), *ROOT.glob("core/tests/test_*.py")]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
                yield node.name


def test_tests_that_the_page_names_exist():
    named = set(re.findall(r"`(test_\w+)`", TEXT))
    assert len(named) > 30
    assert named - set(names_of_tests()) == set()


def test_every_promise_names_the_tests_that_hold_it():
    *promises, limits = re.split(r"(?m)^## ", TEXT)[1:]
    assert limits.startswith("What is not promised")
    assert len(promises) >= 8
    assert all("\n- `test_" in promise for promise in promises)
