"""Request bodies: JSON text to checked data, and what is wrong with it in words for a person."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from shardlift.api.errors import BAD_AGENCY, BAD_PARAMETER, ApiError, native_error, shown
from shardlift.api.schemas import AGENCY
from shardlift.errors import UsageError

Model = TypeVar("Model", bound=BaseModel)

_AGENCY = re.compile(AGENCY)


def json_body(body: bytes) -> dict[str, Any] | None:
    """The object in the body; None for an empty body and for `null`. Keys with a null value count as absent.

    Raises ApiError (400 CSS.0001) when it is not JSON, or not an object.
    """
    if not body.strip():
        return None
    try:
        value = json.loads(body)
    except (ValueError, RecursionError) as error:
        reason = "nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise ApiError(BAD_PARAMETER, f"The body is not JSON: {reason}.") from None
    if value is None:
        return None
    if not isinstance(value, dict):
        raise ApiError(BAD_PARAMETER, f"The body must be a JSON object, got {shown(value)}.")
    return {key: item for key, item in value.items() if item is not None}


def check_agency(value: Mapping[str, Any]) -> None:
    """Raises ApiError (400 CSS.5130) when an agency is given whose name is none."""
    agency = value.get("agency", "none")
    if not (isinstance(agency, str) and _AGENCY.fullmatch(agency)):
        raise ApiError(BAD_AGENCY, f"agency: must be 1 to 64 letters, digits, _ or -, got {shown(agency)}.")


def css_parsed(model: type[Model], value: Mapping[str, Any] | None) -> Model:
    """The body as the CSS API checks it. Raises ApiError (400 CSS.0001)."""
    try:
        return model.model_validate(value or {})
    except ValidationError as error:
        raise ApiError(BAD_PARAMETER, first_problem(error)[1]) from None


def native_parsed(model: type[Model], body: bytes) -> Model:
    """The body as the native API checks it. Raises ApiError (400) that names the field."""
    try:
        return model.model_validate(json_body(body) or {})
    except ValidationError as error:
        field, problem = first_problem(error)
        raise native_error(UsageError(problem, field=field)) from None


def first_problem(errors: ValidationError | Sequence[Mapping[str, Any]]) -> tuple[str, str]:
    """Field name and sentence of the first thing that is wrong: one at a time is what people can act on."""
    problem: Mapping[str, Any] = (errors.errors() if isinstance(errors, ValidationError) else errors)[0]
    field = str(problem["loc"][-1]) if problem["loc"] else "body"
    if problem["type"] == "missing":
        return field, f"{field} is required."
    reason = str(problem["msg"]).removeprefix("Value error, ")
    reason = reason[:1].lower() + reason[1:]
    return field, f"{field}: {reason}, got {shown(problem.get('input'))}."
