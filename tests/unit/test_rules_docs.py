"""Every rule has a page and a row in the table of rules, and these say when it is asked."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from shardlift.checks import BATCH_RULES, NODE_RULES, PLAN_RULES
from shardlift.checks.gates import gates_unknown
from shardlift.model import Gates
from shardlift.planner.obstacles import RULE as DRAIN_CAN_END

DOCS = Path(__file__).parents[2] / "docs"
GATES = {
    finding.rule
    for finding in gates_unknown(
        Gates(search_latency_ms=1, write_latency_ms=1, rejections=1, heap_percent=1, disk_percent=1), "?"
    )
}
LISTS = (("before", PLAN_RULES), ("at each node", NODE_RULES), ("of each order", BATCH_RULES))


def asked() -> dict[str, list[str]]:
    """Every rule of the three lists, with when it is asked."""
    found: dict[str, list[str]] = {}
    for when, rules in LISTS:
        for rule in rules:
            found.setdefault(getattr(rule, "__name__", ""), []).append(when)
    return found


EVERY = sorted(asked().keys() | GATES | {DRAIN_CAN_END})
ROW = re.compile(r"\| \[(\w+)\]\(rules/(\w+)\.md\) \| ([^|]+) \| ([^|]+) \| [^|]+ \|")


def table() -> dict[str, tuple[str, str]]:
    rows = (ROW.fullmatch(line) for line in (DOCS / "rules.md").read_text("utf-8").splitlines())
    return {row[1]: (row[3], row[4]) for row in rows if row is not None and row[1] == row[2]}


def test_the_table_and_the_pages_hold_all_rules_and_nothing_else() -> None:
    assert sorted(table()) == EVERY
    assert sorted(path.stem for path in (DOCS / "rules").glob("*.md")) == EVERY


@pytest.mark.parametrize("rule", EVERY)
def test_a_page_tells_what_why_an_example_and_what_to_do(rule: str) -> None:
    text = (DOCS / "rules" / f"{rule}.md").read_text("utf-8")
    assert text.startswith(f"# {rule}\n\nAsked ")
    assert re.findall(r"^## (.+)$", text, re.MULTILINE) == ["Why", "What it says", "What to do"]
    assert re.search(r"```text\n.+\n```", text, re.DOTALL)
    assert re.search(r"^(1\. |\| decider)", text.partition("## What to do")[2], re.MULTILINE)


@pytest.mark.parametrize("rule", sorted(asked()))
def test_page_and_table_say_when_a_rule_is_asked(rule: str) -> None:
    when, severity = table()[rule]
    assert when == ", ".join(asked()[rule])
    intro = (DOCS / "rules" / f"{rule}.md").read_text("utf-8").splitlines()[2]
    assert intro.startswith(f"Asked {when}. ")
    assert ("Warns," in intro) == (severity == "warn")
