"""Our errors in CSS's codes."""

from __future__ import annotations

import pytest

from shardlift.api.errors import ApiError, Row, css_error, native_error, shown
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


def finding(rule: str, severity: Severity = Severity.BLOCK) -> Finding:
    return Finding(rule, severity, "index-a", "no replica", "1 copy on esn-1", "Add a replica.")


def refused(*rules: str) -> RefusedError:
    return RefusedError("refused", tuple(finding(rule) for rule in rules))


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (UsageError("bad", remedy="say better"), 400, "CSS.0001"),
        (BusyError("held by task 1"), 409, "CSS.0011"),
        (FencedError("gone"), 409, "CSS.0011"),
        (NotFoundError("no such"), 403, "CSS.0015"),
        (EngineError("connection refused", status=None), 400, "CSS.0078"),
        (RefusedError("not now"), 400, "CSS.0078"),
        (refused("data_nodes_minimum", "disk_room"), 400, "CSS.0074"),
        (refused("disk_room", "indices_backed_up"), 400, "CSS.0083"),
        (refused("data_nodes_minimum", "nodes_present"), 412, "CSS.0078"),
        (refused("cluster_healthy"), 412, "CSS.0078"),
        (refused("version_hop_allowed"), 412, "CSS.0078"),
        (DriverError("disk full"), 500, "CSS.0005"),
        (ShardliftError("else"), 500, "CSS.0005"),
    ],
)
def test_codes(error: ShardliftError, status: int, code: str) -> None:
    told = css_error(error)
    assert (told.row.status, told.row.code) == (status, code)


def test_a_body_has_all_four_keys() -> None:
    body = ApiError(Row(400, "CSS.0001", "Incorrect parameters."), "limit: must be less.").body()
    text = "Incorrect parameters. limit: must be less."
    assert body == {
        "error_code": "CSS.0001",
        "error_msg": text,
        "errCode": "CSS.0001",
        "externalMessage": f"CSS.0001 : {text}",
    }


def test_a_refusal_tells_rule_reason_evidence_and_remedy_of_each_finding() -> None:
    error = RefusedError("refused", (finding("disk_room"), finding("load_low", Severity.WARN), finding("copies_fit")))
    assert css_error(error).detail == (
        "disk_room: index-a: no replica (1 copy on esn-1). Add a replica. "
        "copies_fit: index-a: no replica (1 copy on esn-1). Add a replica."
    )


def test_the_rule_that_gave_the_code_is_told_first() -> None:
    assert css_error(refused("disk_room", "indices_backed_up")).detail.startswith("indices_backed_up: index-a")


def test_messages_and_remedies_become_sentences() -> None:
    assert css_error(UsageError("no such zone", remedy="name one")).detail == "no such zone. Name one."
    assert css_error(UsageError("batch_size: too big.")).detail == "batch_size: too big."


def test_a_missing_thing_tells_nothing_about_itself() -> None:
    assert css_error(NotFoundError("cluster 7 of project 9")).body() == css_error(NotFoundError("other")).body()


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (UsageError("bad"), 400),
        (NotFoundError("no such"), 404),
        (BusyError("held"), 409),
        (refused("disk_room"), 412),
        (EngineError("connection refused"), 502),
        (DriverError("disk full"), 502),
        (ShardliftError("else"), 500),
    ],
)
def test_native_statuses(error: ShardliftError, status: int) -> None:
    told = native_error(error)
    assert told.row.status == status
    assert told.body()["error"] == error.code
    assert set(told.body()) >= {"error_code", "error_msg", "errCode", "externalMessage", "message"}


def test_a_native_refusal_has_the_findings_as_data() -> None:
    body = native_error(refused("disk_room")).body()
    assert body["findings"] == [finding("disk_room").as_dict()]


@pytest.mark.parametrize("value", ["a\nb", "\ud800", {"k": ["é"]}, b"raw", "x" * 9000, float("nan")])
def test_a_shown_value_is_one_short_ascii_line(value: object) -> None:
    text = shown(value)
    assert text.isascii()
    assert "\n" not in text
    assert len(text) < 300
