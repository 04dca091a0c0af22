"""The reason in an engine's error body, in one line."""

from __future__ import annotations

from collections.abc import Mapping

_LENGTH_MAX = 500


def complaint(info: object, fallback: object) -> str:
    """`type: reason` of the error, with its innermost cause where that says more; at most 500 characters."""
    error = info.get("error") if isinstance(info, Mapping) else None
    if isinstance(error, Mapping):
        text = _line(error)
        cause = _innermost(error)
        if cause is not None and _line(cause) not in text:
            text = f"{text}, caused by {_line(cause)}"
    else:
        text = str(error or fallback)
    text = " ".join(text.split())
    return text if len(text) <= _LENGTH_MAX else text[: _LENGTH_MAX - 3] + "..."


def _line(error: Mapping[str, object]) -> str:
    kind, reason = error.get("type"), error.get("reason")
    return f"{kind}: {reason}" if reason else str(kind)


def _innermost(error: Mapping[str, object]) -> Mapping[str, object] | None:
    found = None
    cause = error.get("caused_by")
    for _ in range(10):  # causes nest; a body that never ends is not worth following
        if not isinstance(cause, Mapping):
            break
        found, cause = cause, cause.get("caused_by")
    return found
