"""The one exception that bad input raises."""

from __future__ import annotations


class UwmError(ValueError):
    """Bad input: the message is one sentence that names what was wrong and what to do about it."""
