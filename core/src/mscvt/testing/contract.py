"""The tests that every family must pass; a plugin's suite inherits them."""

from __future__ import annotations


class FamilyContract:
    """Placeholder until the contract is written."""
