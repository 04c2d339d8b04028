"""The examples in docstrings run."""

import doctest
import importlib
import pkgutil

import pytest

import mscvt

MODULES = [
    module.name for module in pkgutil.walk_packages(mscvt.__path__, "mscvt.") if not module.name.endswith("__main__")
]


@pytest.mark.parametrize("name", MODULES)
def test_docstring_examples_give_what_they_show(name):
    assert doctest.testmod(importlib.import_module(name)).failed == 0


def test_some_docstrings_have_examples():
    assert sum(doctest.testmod(importlib.import_module(name)).attempted for name in MODULES) > 0
