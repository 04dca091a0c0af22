"""Errors that reach a person. Each names what was wrong and what to do; none needs a traceback to be understood."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from shardlift.model import Finding


class ShardliftError(Exception):
    """Base of all expected failures.

    `message` says what is wrong, `field` and `value` name the offending input if any, `remedy` says what to do.
    `exit_code` is what the command line ends with (0 done, 1 failed, 2 usage, 3 refused, 4 not found, 5 busy).
    """

    code = "failed"
    exit_code = 1

    def __init__(
        self, message: str, *, field: str | None = None, value: object = None, remedy: str | None = None
    ) -> None:
        super().__init__(message)
        self.message = message
        self.field = field
        self.value = value
        self.remedy = remedy

    def as_dict(self) -> dict[str, object]:
        """The error as JSON-ready data: `error`, `message`, and, where set, `field`, `value`, `remedy`."""
        out: dict[str, object] = {"error": self.code, "message": self.message}
        if self.field is not None:
            out["field"] = self.field
            out["value"] = self.value if isinstance(self.value, str | int | float | bool | None) else str(self.value)
        if self.remedy is not None:
            out["remedy"] = self.remedy
        return out


class UsageError(ShardliftError):
    """The request itself is wrong: an unknown word, a value out of range."""

    code = "usage"
    exit_code = 2


class RefusedError(ShardliftError):
    """The request is well formed, but a rule forbids it now. `findings` has at least one blocking finding."""

    code = "refused"
    exit_code = 3

    def __init__(self, message: str, findings: tuple[Finding, ...] = (), *, remedy: str | None = None) -> None:
        super().__init__(message, remedy=remedy)
        self.findings = findings


class NotFoundError(ShardliftError):
    """No such cluster, image, project, node or task."""

    code = "not_found"
    exit_code = 4


class BusyError(ShardliftError):
    """Another operation holds what this one needs; the message names the holder."""

    code = "busy"
    exit_code = 5


class FencedError(ShardliftError):
    """Our lease on the cluster is gone: somebody else acts on it now, so we stop before the next effect."""

    code = "fenced"


class EngineError(ShardliftError):
    """The cluster's REST API did not answer, or refused a call. `status` is the HTTP status, None without an answer."""

    code = "engine"

    def __init__(self, message: str, *, status: int | None = None, remedy: str | None = None) -> None:
        super().__init__(message, remedy=remedy)
        self.status = status


class DriverError(ShardliftError):
    """The host did not do what was asked: a file, a process, a JVM, an archive."""

    code = "driver"


class HookError(ShardliftError):
    """The traffic hook of a cluster did not do what was asked, so nobody knows whether clients still come to a node."""

    code = "hook"
