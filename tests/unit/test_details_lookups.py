"""What a poll reads is looked up in an index, however many tasks there are."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Executable
from sqlalchemy.dialects import sqlite

from shardlift.store import details
from shardlift.store.database import migrate

IDS = {"ids": ["a", "b", "c"]}
STATEMENTS: dict[str, tuple[Any, dict[str, Any]]] = {
    "tasks": (details._TASKS, IDS),
    "plans": (details._PLANS, IDS),
    "nodes": (details._NODES, IDS),
    "newest": (details._NEWEST, IDS),
    "all rows": (details._ALL_STEPS, IDS),
    **{
        f"rows of {count} nodes": (
            details._steps_of(count),
            {f"{name}_{at}": f"{name}-{at}" for name in ("task", "node") for at in range(count)},
        )
        for count in (1, 2, 10, 100)
    },
}


@pytest.mark.parametrize("name", STATEMENTS)
def test_no_statement_of_a_poll_goes_through_a_table(name: str, tmp_path: Path) -> None:
    path = tmp_path / "empty.db"
    migrate(path)
    statement, values = STATEMENTS[name]
    with sqlite3.connect(path) as connection:
        steps = [row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {_text(statement, values)}")]
    connection.close()
    assert any(step.startswith("SEARCH") for step in steps)
    assert not [step for step in steps if step.startswith(("SCAN task", "SCAN step", "SCAN cluster"))]


def _text(statement: Executable, values: dict[str, Any]) -> str:
    made = statement.params(**values)  # type: ignore[attr-defined]
    return str(made.compile(dialect=sqlite.dialect(), compile_kwargs={"literal_binds": True}))
