"""What goes wrong, as clients are told it: the error table of the CSS contract, and how our own errors map onto it.

Every error body has the four keys that different clients read: `error_code`, `error_msg`, `errCode` and
`externalMessage`. The native API adds ours (`error`, `message`, `field`, `value`, `remedy`, `findings`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus

from fastapi.responses import JSONResponse

from shardlift.errors import (
    BusyError,
    DriverError,
    EngineError,
    FencedError,
    NotFoundError,
    RefusedError,
    ShardliftError,
    UsageError,
)
from shardlift.model import Finding, Severity


@dataclass(frozen=True, slots=True)
class Row:
    """One row of the error table: HTTP status, code and the words that CSS uses."""

    status: int
    code: str
    text: str


BAD_PARAMETER = Row(400, "CSS.0001", "Incorrect parameters.")
SERVER_ERROR = Row(500, "CSS.0005", "Server error.")
NULL_BODY = Row(400, "CSS.0006", "The request is null. Enter the request parameters.")
NOT_PERMITTED = Row(403, "CSS.0010", "The request was rejected because the operation is not authorized.")
BUSY = Row(
    409,
    "CSS.0011",
    "This operation cannot be performed because another operation is being performed on the cluster.",
)
NO_ACCESS = Row(403, "CSS.0015", "No resources are found or the access is denied.")
NOT_FOUND = Row(404, "CSS.0016", "Resource not found.")
TOO_FEW_NODES = Row(400, "CSS.0074", "The cluster must have at least 3 data nodes.")
BAD_NODE_TYPE = Row(400, "CSS.0076", "Invalid node role type.")
NOT_UPGRADABLE = Row(400, "CSS.0078", "The cluster is in a status that does not support upgrade.")
CHECK_FAILED = Row(412, "CSS.0078", "The cluster is in a status that does not support upgrade.")
NO_TASK = Row(400, "CSS.0082", "The record does not exist.")
NOT_BACKED_UP = Row(400, "CSS.0083", "Some indexes are not backed up.")
NOT_RETRYABLE = Row(400, "CSS.5090", "In this status, the current operation is not allowed.")
BAD_AGENCY = Row(400, "CSS.5130", "Invalid agency name.")
UNSUPPORTED = Row(400, "CSS.5140", "The cluster does not support this operation.")
BAD_AZ = Row(400, "CSS.5011", "Invalid AZ.")
UNKNOWN_AZ = Row(404, "CSS.5012", "The region or AZ does not exist.")
NO_NODE = Row(404, "CSS.0022", "The instance does not exist or has been deleted.")
UNAUTHENTICATED = Row(401, "APIGW.0301", "Incorrect IAM authentication information.")
BODY_TOO_LARGE = Row(413, "CSS.0001", "Incorrect parameters.")
WRONG_METHOD = Row(405, "CSS.0001", "Incorrect parameters.")

# Refusals that CSS has codes of its own for; every other rule answers CHECK_FAILED. The first that objects decides:
# while a node is down its cluster also counts too few, but being too small is not what is wrong with it.
_RULE_ROWS = {
    "nodes_present": CHECK_FAILED,
    "data_nodes_minimum": TOO_FEW_NODES,
    "indices_backed_up": NOT_BACKED_UP,
}
_SHOWN_MAX = 200


class ApiError(Exception):
    """An answer that is an error. `detail` follows the row's words; `extra` are further keys of a native body."""

    def __init__(self, row: Row, detail: str = "", extra: Mapping[str, object] | None = None) -> None:
        super().__init__(f"{row.status} {row.code} {detail}")
        self.row = row
        self.detail = detail
        self.extra = extra or {}

    def body(self) -> dict[str, object]:
        text = f"{self.row.text} {self.detail}".strip()
        return {
            **self.extra,
            "error_code": self.row.code,
            "error_msg": text,
            "errCode": self.row.code,
            "externalMessage": f"{self.row.code} : {text}",
        }

    def response(self) -> JSONResponse:
        return JSONResponse(self.body(), status_code=self.row.status)


def shown(value: object) -> str:
    """A caller's value, quoted so that it can stand in a message: ASCII, one line, bounded."""
    try:
        text = json.dumps(value)
    except (TypeError, ValueError):
        text = f"a value of type {type(value).__name__}"
    return text if len(text) <= _SHOWN_MAX else text[:_SHOWN_MAX] + "..."


def css_error(error: ShardliftError) -> ApiError:
    """The answer of the CSS API to one of our errors."""
    match error:
        case RefusedError():
            return _refused(error)
        case BusyError() | FencedError():
            return ApiError(BUSY, _told(error))
        case NotFoundError():
            return ApiError(NO_ACCESS)
        case UsageError():
            return ApiError(BAD_PARAMETER, _told(error))
        case EngineError():
            # The cluster does not answer as a healthy one does: its state, not the request, is what stands in the way.
            return ApiError(NOT_UPGRADABLE, _told(error))
        case _:
            return ApiError(SERVER_ERROR, _told(error))


def native_error(error: ShardliftError) -> ApiError:
    """The answer of the native API: plain HTTP meanings, the same keys, and our own beside them."""
    statuses: tuple[tuple[type[ShardliftError], HTTPStatus], ...] = (
        (RefusedError, HTTPStatus.PRECONDITION_FAILED),
        (BusyError, HTTPStatus.CONFLICT),
        (FencedError, HTTPStatus.CONFLICT),
        (NotFoundError, HTTPStatus.NOT_FOUND),
        (UsageError, HTTPStatus.BAD_REQUEST),
        (EngineError, HTTPStatus.BAD_GATEWAY),
        (DriverError, HTTPStatus.BAD_GATEWAY),
    )
    status = next((code for kind, code in statuses if isinstance(error, kind)), HTTPStatus.INTERNAL_SERVER_ERROR)
    known = NOT_FOUND if isinstance(error, NotFoundError) else css_error(error).row
    extra = error.as_dict()
    if isinstance(error, RefusedError):
        extra["findings"] = [finding.as_dict() for finding in error.findings]
    return ApiError(Row(int(status), known.code, known.text), _told(error), extra)


def _refused(error: RefusedError) -> ApiError:
    blocking = [finding for finding in error.findings if finding.severity is Severity.BLOCK]
    if not blocking:
        return ApiError(NOT_UPGRADABLE, _told(error))
    rules = {finding.rule for finding in blocking}
    deciding = next((rule for rule in _RULE_ROWS if rule in rules), blocking[0].rule)
    first = sorted(blocking, key=lambda finding: finding.rule != deciding)
    return ApiError(_RULE_ROWS.get(deciding, CHECK_FAILED), " ".join(_finding_text(finding) for finding in first))


def _finding_text(finding: Finding) -> str:
    evidence = f" ({finding.evidence})" if finding.evidence else ""
    said = f"{finding.rule}: {finding.subject}: {finding.reason}{evidence}".rstrip(".") + "."
    return f"{said} {_instruction(finding.remedy)}".strip()


def _told(error: ShardliftError) -> str:
    """Message and remedy as sentences."""
    return f"{sentence(error.message)} {_instruction(error.remedy or '')}".strip()


def sentence(text: str) -> str:
    """With a stop behind. What stands in front may be a field's name, so it is left as it is."""
    text = text.strip()
    return text if not text or text.endswith((".", "!", "?")) else text + "."


def _instruction(text: str) -> str:
    """A remedy as a sentence: with a capital letter too, unless it begins with a command or a path."""
    return sentence(text[:1].upper() + text[1:] if text.split(" ", 1)[0].isalpha() else text)
