"""The one exception that bad input raises."""

from __future__ import annotations


class UwmError(ValueError):
    """Bad input: the message is one sentence that names what was wrong and what to do about it."""


def in_one_line(error: Exception) -> str:
    """Return what another library's error says, for the brackets of a sentence; its class where it says nothing."""
    return " ".join(str(error).split()) or type(error).__name__
