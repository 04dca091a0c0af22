"""Which version may follow which, and which indices a version opens."""

from __future__ import annotations

import pytest

from shardlift.checks import hop_allowed, oldest_index
from shardlift.model import EngineKind, Version

ES, OS = EngineKind.ELASTICSEARCH, EngineKind.OPENSEARCH


@pytest.mark.parametrize(
    ("source", "target", "allowed"),
    [
        ((ES, "6.8.23"), (ES, "7.10.2"), True),
        ((ES, "6.7.0"), (ES, "7.10.2"), False),
        ((ES, "7.17.28"), (ES, "8.19.0"), True),
        ((ES, "7.10.2"), (ES, "8.19.0"), False),
        ((ES, "7.10.2"), (OS, "1.3.20"), True),
        ((ES, "7.17.28"), (OS, "1.3.20"), False),
        ((OS, "1.3.20"), (OS, "2.19.4"), True),
        ((OS, "2.19.4"), (OS, "3.4.0"), True),
        ((OS, "2.18.0"), (OS, "3.4.0"), False),
        ((OS, "1.3.20"), (OS, "3.4.0"), False),
        ((OS, "2.19.4"), (OS, "1.3.20"), False),
        ((OS, "2.19.4"), (OS, "2.19.5"), True),
        ((OS, "3.4.0"), (OS, "3.3.2"), False),
        ((OS, "2.19.4"), (ES, "8.19.0"), False),
        ((OS, "3.4.0"), (OS, "9.0.0"), False),
    ],
)
def test_hops(source: tuple[EngineKind, str], target: tuple[EngineKind, str], allowed: bool) -> None:
    reason = hop_allowed(source[0], Version.parse(source[1]), target[0], Version.parse(target[1]))
    assert (reason is None) is allowed
    assert allowed or reason


@pytest.mark.parametrize(
    ("created", "target", "opens"),
    [
        ((ES, "6.8.23"), (OS, "1.3.20"), True),
        ((ES, "6.8.23"), (OS, "2.19.4"), False),
        ((ES, "7.10.2"), (OS, "2.19.4"), True),
        ((ES, "7.10.2"), (OS, "3.4.0"), False),
        ((OS, "1.3.20"), (OS, "3.4.0"), False),
        ((OS, "2.4.0"), (OS, "3.4.0"), True),
        ((ES, "5.6.0"), (ES, "7.10.2"), False),
    ],
)
def test_index_ages(created: tuple[EngineKind, str], target: tuple[EngineKind, str], opens: bool) -> None:
    reason = oldest_index(target[0], created[0], Version.parse(created[1]), Version.parse(target[1]))
    assert (reason is None) is opens
