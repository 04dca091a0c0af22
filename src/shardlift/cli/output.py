"""Results go to stdout, as a table or as one JSON document; everything else goes to stderr."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from shardlift.errors import RefusedError, ShardliftError

_PIPED_WIDTH = 400  # a pipe has no width; ids and names must stay on their line

AsJson = Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")]


def stdout() -> Console:
    return _console(sys.stdout.isatty(), stderr=False)


def stderr() -> Console:
    return _console(sys.stderr.isatty(), stderr=True)


def _console(terminal: bool, *, stderr: bool) -> Console:
    return Console(stderr=stderr, highlight=False, soft_wrap=True, width=None if terminal else _PIPED_WIDTH)


def print_json(document: Mapping[str, object]) -> None:
    sys.stdout.write(json.dumps(document, indent=2, ensure_ascii=False, default=str) + "\n")


def print_fields(fields: Mapping[str, object]) -> None:
    """One `name  value` line each; None is a dash."""
    width = max(len(name) for name in fields)
    console = stdout()
    for name, value in fields.items():
        console.print(Text(f"{name:<{width}}  ").append(_shown(value)))


def print_table(columns: Sequence[str], rows: Iterable[Sequence[object]], *, empty: str) -> None:
    """`empty` is said, on stderr, when there is no row."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for column in columns:
        table.add_column(column, no_wrap=True)
    for row in rows:
        table.add_row(*(Text(_shown(cell)) for cell in row))
    if table.row_count:
        stdout().print(table, soft_wrap=False)
    else:
        say(empty)


def say(text: str) -> None:
    """A remark for the person at the terminal."""
    stderr().print(Text(text))


def _shown(value: object) -> str:
    if value is None or value == "":
        return "-"
    if isinstance(value, list | tuple):
        return ", ".join(str(item) for item in value) or "-"
    return str(value)


def error_document(error: ShardliftError) -> dict[str, object]:
    document = error.as_dict()
    if isinstance(error, RefusedError) and error.findings:
        document["findings"] = [finding.as_dict() for finding in error.findings]
    return document


def print_error(error: ShardliftError, *, as_json: bool) -> None:
    """On stderr: `error:`, the offending field and value, each finding, `remedy:`.

    With --json one document on stdout too: a caller that reads stdout as JSON gets one in every case.
    """
    if as_json:
        print_json(error_document(error))
    console = stderr()
    console.print(Text.assemble(("error: ", "bold red"), error.message))
    if error.field is not None:
        console.print(Text(f"  {error.field}: {error.value}"))
    if isinstance(error, RefusedError):
        for finding in error.findings:
            console.print(Text(f"  {finding}"))
    if error.remedy is not None:
        console.print(Text.assemble(("remedy: ", "bold"), error.remedy))


def print_unexpected(error: BaseException, log: Path, *, as_json: bool) -> None:
    """One line for what should not have happened; the traceback is in the log."""
    message = f"unexpected {type(error).__name__}; the details are in {log}"
    print_error(ShardliftError(message, remedy="please report it with that file"), as_json=as_json)
