"""How the end of a sub-step or of a task is told. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from shardlift.errors import ShardliftError
from shardlift.steps.context import StepFailedError


def failure_account(error: ShardliftError, more: Mapping[str, object]) -> tuple[str, dict[str, object]]:
    """A failed sub-step in a sentence with its findings and its remedy, and as evidence. `more`: what else is known."""
    evidence: dict[str, object] = {**more, "error": error.message}
    parts = [error.message]
    if isinstance(error, StepFailedError):
        evidence |= error.evidence
        evidence["findings"] = [finding.as_dict() for finding in error.findings]
        parts += [str(finding) for finding in error.findings]
        parts += [f"{key}: {value}" for key, value in error.evidence.items() if key != "log"]
    if error.remedy:
        evidence["remedy"] = error.remedy
        parts.append(f"remedy: {error.remedy}")
    return "; ".join(parts), evidence


def end_account(partial: str, restored_keys: Sequence[str], *, mixed: bool) -> list[str]:
    """What a task that was asked to end leaves behind. `mixed`: its nodes run two versions."""
    account = [f"ended on request: {partial}"]
    if restored_keys:
        account.append(f"settings put back: {', '.join(restored_keys)}")
    if mixed:
        account.append("the cluster runs two versions until a new upgrade takes the nodes that are left")
    return account
