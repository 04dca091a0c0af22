"""Shapes of the names and numbers that callers send."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import BeforeValidator, Field

_UUID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_NAME = re.compile(r"[A-Za-z0-9._:-]{1,128}")
_WHOLE = re.compile(r"-?[0-9]{1,9}")

UPGRADE_TYPES = {"same": "same", "cross": "cross", "cross-engine": "cross-engine", "crossEngine": "cross-engine"}


def is_uuid(text: str) -> bool:
    return _UUID.fullmatch(text) is not None


def is_name(text: str) -> bool:
    """Whether it can be the id or name of anything of ours; what cannot is not worth a look in the database."""
    return _NAME.fullmatch(text) is not None


def _whole(value: object) -> object:
    if isinstance(value, str) and not _WHOLE.fullmatch(value):
        raise ValueError("must be a whole number")
    return value


# pydantic alone would take "1.0", " 1 " and "1_0" for whole numbers.
Whole = BeforeValidator(_whole)
Counted = Annotated[int, Field(ge=1, le=1000)]
