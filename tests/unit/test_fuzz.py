"""Requests that a machine makes up from the OpenAPI document: every answer is one that the document knows.

The same ones at each run; `SHARDLIFT_FUZZ=500` asks for so many other ones of each call.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis import Case, GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi import checks

from tests.api_world import BASE
from tests.fuzzing import Stage, document, open_stage, operations

CHECKS = [
    not_a_server_error,
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_headers_conformance,
    checks.response_schema_conformance,
]
MORE = int(os.environ.get("SHARDLIFT_FUZZ", "0"))
pytestmark = pytest.mark.fuzz
CSS_KEYS = {"error_code", "error_msg", "errCode", "externalMessage"}
# A cluster's stream has no end, and a running task's none for an hour.
STREAMS = {"cluster": "/api/v1/clusters/{cluster}/events", "task_id": "/api/v1/tasks/{task_id}/events"}


def fuzz(examples: int) -> settings:
    return settings(
        max_examples=MORE or examples,
        derandomize=not MORE,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    with tempfile.TemporaryDirectory(prefix="shardlift-fuzz-") as home, open_stage(Path(home)) as ready:
        yield ready


def with_real_ids(case: Case, stage: Stage, data: st.DataObject) -> None:
    """Puts what exists in the place of what was made up, mostly: else nothing would be found."""
    for name in case.path_parameters or {}:
        known = stage.ids.get(name, ())
        if STREAMS.get(name) == case.path:
            known = (stage.ended,) if name == "task_id" else ()
        if known and data.draw(st.integers(0, 4), label=f"{name} is real"):
            case.path_parameters[name] = data.draw(st.sampled_from(known), label=name)
    if isinstance(case.body, dict):
        for name in case.body.keys() & stage.ids.keys():
            if data.draw(st.booleans(), label=f"{name} is real"):
                case.body[name] = data.draw(st.sampled_from(stage.ids[name]), label=name)
    if isinstance(case.query, dict) and "after_revision" in case.query:
        case.query["wait_s"] = 0  # nothing will change, and half a minute is long


def assert_sound(case: Case, answer: httpx.Response) -> None:
    case.validate_response(answer, checks=CHECKS)
    assert len(answer.headers["x-request-id"]) == 32
    assert "Traceback" not in answer.text
    if answer.status_code >= 400:
        told = answer.json()
        assert told.keys() >= CSS_KEYS
        assert told["externalMessage"] == f"{told['errCode']} : {told['error_msg']}"
        if not case.path.startswith("/api/"):
            assert told.keys() == CSS_KEYS


def clear_faults(stage: Stage) -> None:
    """Faults of calls would answer what the document does not know: that is what they are for."""
    for cluster in stage.ids["own"]:
        url = f"{BASE}/api/v1/faults?cluster={cluster}"
        assert stage.send("DELETE", url, stage.token("", "", {}, b""), b"").status_code == 200


@pytest.mark.parametrize("name", operations())
def test_every_answer_is_one_that_the_document_knows(stage: Stage, name: str) -> None:
    operation = operations()[name]
    modes = [operation.as_strategy(GenerationMode.POSITIVE)]
    if operation.body or operation.query:
        modes.append(operation.as_strategy(GenerationMode.NEGATIVE))

    @fuzz(4)
    @given(case=st.one_of(modes), by_token=st.booleans(), data=st.data())
    def run(case: Case, by_token: bool, data: st.DataObject) -> None:
        with_real_ids(case, stage, data)
        answer = stage.call(case, stage.token if by_token else stage.signed)
        assert_sound(case, answer)
        if case.path.startswith("/api/v1/faults"):
            clear_faults(stage)

    run()


NAMED = [
    (name, parameter["name"])
    for name in operations()
    for parameter in document()["paths"][name.partition(" ")[2]][name.partition(" ")[0].lower()].get("parameters", ())
    if parameter["in"] == "query" and parameter["name"] in ("cluster", "cluster_id", "task_id")
]


@pytest.mark.parametrize(("name", "parameter"), NAMED)
def test_a_foreign_id_in_the_query_is_like_an_unknown_one(stage: Stage, name: str, parameter: str) -> None:
    """Those in paths are asked for in test_tenancy."""
    foreign, unknown = stage.ids["foreign"][0], "00000000-0000-4000-8000-000000000000"

    @fuzz(3)
    @given(case=operations()[name].as_strategy())
    def run(case: Case) -> None:
        answers = []
        for one in (unknown, foreign):
            case.query = {**(case.query or {}), parameter: one}
            answer = stage.call(case, stage.token)
            assert_sound(case, answer)
            assert answer.status_code in (400, 403, 404)
            answers.append((answer.status_code, answer.text.replace(one, "ID")))
        assert answers[0] == answers[1]

    run()


HEADERS = st.one_of(
    st.builds("SDK-HMAC-SHA256 Access={}, SignedHeaders={}, Signature={}".format, st.text(), st.text(), st.text()),
    st.builds("V11-HMAC-SHA256 Credential={}/{}".format, st.text(), st.text()),
    st.text(),
)


@pytest.mark.parametrize("name", operations())
def test_a_bad_sign_in_is_refused_everywhere(stage: Stage, name: str) -> None:
    operation = operations()[name]

    @fuzz(2)
    @given(
        case=operation.as_strategy(),
        header=st.sampled_from(["Authorization", "X-Auth-Token"]),
        value=HEADERS.map(lambda text: text.encode("ascii", "ignore").decode().strip()).filter(str.isprintable),
        data=st.data(),
    )
    def run(case: Case, header: str, value: str, data: st.DataObject) -> None:
        with_real_ids(case, stage, data)
        answer = stage.call(case, lambda *_: {header: value})
        assert_sound(case, answer)
        assert (answer.status_code, answer.json()["error_code"]) == (401, "APIGW.0301")

    run()
