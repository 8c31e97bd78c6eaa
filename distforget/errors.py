"""The error that tells users what is wrong with their input."""

from __future__ import annotations


class UsageError(Exception):
    """The user's input is wrong. The message names file, field and fix (exit code 2)."""
