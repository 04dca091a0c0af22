"""Routes at the command line, on a simulated cluster in a home of its own."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest

from shardlift.cli.main import run

WAY = ["opensearch:1.3.20", "opensearch:2.19.5", "opensearch:3.4.0"]


@pytest.fixture
def shardlift(fast_home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    """Runs a command on a home with an Elasticsearch 6.8 cluster: (code, stdout, parsed with --json, stderr)."""
    monkeypatch.setenv("SHARDLIFT_HOME", str(fast_home))

    def call(*arguments: str):
        code = run(arguments)
        out, err = capsys.readouterr()
        assert "Traceback" not in out + err
        return code, json.loads(out) if "--json" in arguments else out, err

    arguments = ("--image", "elasticsearch:6.8.23", "--driver", "sim", "--data", "10MiB", "--speed", "5000")
    assert call("cluster", "create", "books", *arguments)[0] == 0
    return call


def test_a_route_is_offered_shown_and_begun_only_when_approved(shardlift) -> None:
    code, out, err = shardlift("upgrade", "books", "--to", "opensearch:3.4.0")
    assert code == 3
    rows = [line.split() for line in out.splitlines() if line.startswith(("1 ", "2 ", "3 "))]
    assert [row[:3] for row in rows[:3]] == [
        ["1", "elasticsearch:6.8.23", WAY[0]],
        ["2", WAY[0], WAY[1]],
        ["3", WAY[1], WAY[2]],
    ]
    assert "5 indices to be made again first" in out
    assert "before hop 2, on opensearch:1.3.20: opensearch:2.19.5 does not open index-1" in err
    assert "`shardlift upgrade books --to opensearch:3.4.0 --yes`" in err
    assert shardlift("task", "list", "books", "--json")[1] == {"total": 0, "tasks": []}

    code, document, _ = shardlift("upgrade", "books", "--to", "opensearch:3.4.0", "--json")
    assert code == 3
    assert [hop["to"] for hop in document["route"]["hops"]] == WAY
    assert document["remedy"].count("--yes") == 1

    code, document, err = shardlift("upgrade", "books", "--to", "opensearch:3.4.0", "--yes", "--json")
    assert code == 0
    assert [(hop["to"], hop["status"]) for hop in document["hops"]] == [
        (WAY[0], "RUNNING"),
        (WAY[1], "WAITING"),
        (WAY[2], "WAITING"),
    ]
    assert "no `shardlift serve` is running" in err
    (task,) = shardlift("task", "list", "books", "--json")[1]["tasks"]
    assert task["task_id"] == document["hops"][0]["task_id"]
    assert task["route"] == {"route_id": document["route_id"], "hop": 1, "hops_total": 3}
    assert "1/3" in shardlift("task", "list", "books")[1]
    assert shardlift("cluster", "show", "books", "--json")[1]["route"]["hop"] == 1
    assert "hop 1 of 3 to opensearch:3.4.0, RUNNING" in shardlift("cluster", "show", "books")[1]

    assert shardlift("upgrade", "books", "--to", "opensearch:3.4.0", "--yes")[0] == 5
    assert shardlift("route", "abort", "books", "--json")[1]["status"] == "ABORTED"
    assert shardlift("task", "show", task["task_id"], "--json")[1]["aborting"] is True
    assert shardlift("route", "resume", "books")[0] == 3


def test_it_passes_what_it_is_told_to_pass(shardlift) -> None:
    code, document, _ = shardlift(
        *("check", "books", "--to", "opensearch:2.19.4", "--via", "elasticsearch:7.10.2", "--json")
    )
    assert code == 3, "no single upgrade leads there"
    assert next(one["rule"] for one in document["findings"] if one["severity"] == "block") == "version_hop_allowed"
    assert [hop["to"] for hop in document["route"]["hops"]] == ["elasticsearch:7.10.2", "opensearch:2.19.4"]
    assert document["route"]["hops"][1]["rebuild_first"] == [f"index-{at}" for at in range(1, 6)]
    assert document["route"]["ok"] is True


@pytest.mark.parametrize(("answer", "begun"), [("n\n", 0), ("y\n", 1)])
def test_a_person_at_the_terminal_is_asked(shardlift, monkeypatch, answer: str, begun: int) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr("sys.stdin", Terminal(answer))
    monkeypatch.setattr("shardlift.cli.routes.at_terminal", lambda: True)
    code, _, err = shardlift("upgrade", "books", "--to", "opensearch:3.4.0")
    assert "Run these 3 hops" in err
    assert code == (0 if begun else 3)
    assert shardlift("task", "list", "books", "--json")[1]["total"] == begun


def test_where_nothing_leads_there_the_rule_says_so(shardlift) -> None:
    code, document, _ = shardlift("upgrade", "books", "--to", "opensearch:3.4.0", "--via", "opensearch:3.6.0", "--json")
    assert (code, document["error"]) == (3, "refused")
    assert (
        "no route leads from elasticsearch 6.8.23 to opensearch:3.4.0 through opensearch:3.6.0" in document["message"]
    )
    assert shardlift("route", "show", "books")[0] == 4
