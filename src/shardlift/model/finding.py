"""What a rule has to say."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Severity(StrEnum):
    """BLOCK stops the operation, WARN is told and passed."""

    BLOCK = "block"
    WARN = "warn"


@dataclass(frozen=True, slots=True)
class Finding:
    """One rule's objection: which rule, about which node or index, why, what was seen, and what to do about it."""

    rule: str
    severity: Severity
    subject: str
    reason: str
    evidence: str
    remedy: str

    def as_dict(self) -> dict[str, str]:
        return {
            "rule": self.rule,
            "severity": str(self.severity),
            "subject": self.subject,
            "reason": self.reason,
            "evidence": self.evidence,
            "remedy": self.remedy,
        }

    def __str__(self) -> str:
        return f"{self.rule}: {self.subject}: {self.reason} ({self.evidence}). {self.remedy}"
