"""Policies as people write them: `--gate search_latency_ms=200`, `--window "mon-fri 01:00-05:00 Europe/Berlin"`."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

from shardlift.errors import UsageError
from shardlift.model import Gates, OnBreach, Policy, Window
from shardlift.service.requests import PolicyChange

_PERCENT = 100
_LIMITS = ("search_latency_ms", "write_latency_ms", "rejections", "heap_percent", "disk_percent")
_GATE_WORDS = (*_LIMITS, "on_breach", "wait_timeout_s")
_WINDOWS_MAX = 50
_WAIT_S = Gates().wait_timeout_s


def policy_from_words(canary: bool, gates: Sequence[str], windows: Sequence[str]) -> Policy:
    """From a command line: each gate is `NAME=VALUE`. Raises UsageError that names the word and what would do."""
    return policy_of(canary, gates_from_words(gates), windows)


def gates_from_words(gates: Sequence[str]) -> dict[str, object]:
    """`NAME=VALUE` each, by name; values are not looked at yet. Raises UsageError."""
    named: dict[str, object] = {}
    for word in gates:
        name, equals, value = word.partition("=")
        if not equals:
            raise UsageError("a gate is NAME=VALUE", field="gate", value=word, remedy=_gate_remedy())
        if name in named:
            raise UsageError("a gate is given twice", field="gate", value=word, remedy="give each name once")
        named[name] = value
    return named


def policy_of(canary: bool, gates: Mapping[str, object], windows: Sequence[str]) -> Policy:
    """From values as JSON has them. Raises UsageError that names the field, its value, and what would do."""
    if len(windows) > _WINDOWS_MAX:
        raise UsageError(
            f"at most {_WINDOWS_MAX} windows", field="window", value=len(windows), remedy="join some of them"
        )
    return Policy(
        canary=canary, gates=_gates(gates) if gates else None, windows=tuple(_window(text) for text in windows)
    )


def changed_policy(before: Policy, change: PolicyChange) -> Policy:
    """The policy with what `change` names put in place. Raises UsageError as `policy_of` does."""
    asked = policy_of(before.canary, change.gates or {}, change.windows or ())
    after = before if change.canary is None else replace(before, canary=change.canary)
    after = after if change.gates is None else replace(after, gates=asked.gates)
    return after if change.windows is None else replace(after, windows=asked.windows)


def _window(text: str) -> Window:
    try:
        return Window.parse(text)
    except ValueError as error:
        raise UsageError(
            f"no maintenance window: {error}",
            field="window",
            value=text,
            remedy='write it as "mon-fri 01:00-05:00 Europe/Berlin": days (else daily), times, and a zone (else UTC)',
        ) from None


def _gates(named: Mapping[str, object]) -> Gates:
    for name in named:
        if name not in _GATE_WORDS:
            raise UsageError(f"no gate {name!r}", field="gate", value=name, remedy=_gate_remedy())
    numbers = {name: _number(name, value) for name, value in named.items() if name != "on_breach"}
    if not numbers.keys() & {*_LIMITS}:
        raise UsageError(
            "no gate has a limit", field="gate", value=", ".join(named), remedy=f"set one of: {', '.join(_LIMITS)}"
        )
    rejections = numbers.get("rejections")
    return Gates(
        search_latency_ms=numbers.get("search_latency_ms"),
        write_latency_ms=numbers.get("write_latency_ms"),
        rejections=None if rejections is None else int(rejections),
        heap_percent=numbers.get("heap_percent"),
        disk_percent=numbers.get("disk_percent"),
        on_breach=_on_breach(named.get("on_breach", OnBreach.WAIT)),
        wait_timeout_s=numbers.get("wait_timeout_s", _WAIT_S),
    )


def _number(name: str, value: object) -> float:
    try:
        number = float(str(value))
    except ValueError:
        number = math.nan
    most = _PERCENT if name.endswith("_percent") else math.inf
    whole = name != "rejections" or number == math.floor(number)
    if not (math.isfinite(number) and 0 <= number <= most and whole):
        wanted = "a whole number" if name == "rejections" else "a number"
        up_to = f" to {most:g}" if most < math.inf else " or more"
        raise UsageError(f"{name} is {wanted}", field=name, value=value, remedy=f"give {wanted}, 0{up_to}")
    return number


def _on_breach(value: object) -> OnBreach:
    try:
        return OnBreach(str(value))
    except ValueError:
        raise UsageError(
            "no such way to treat a closed gate",
            field="on_breach",
            value=value,
            remedy=f"choose one of: {', '.join(OnBreach)}",
        ) from None


def _gate_remedy() -> str:
    return f"choose from: {', '.join(_GATE_WORDS)}"
