"""A task as it goes: nodes done, the current node's 13 sub-steps, what it waits for. On a terminal it is redrawn in
place; else there is one line per change. All of it goes to stderr."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Protocol

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from shardlift.cli.output import stderr
from shardlift.model import Eta, StepRow, StepStatus, Task, TaskStatus, eta

if TYPE_CHECKING:
    from shardlift.service import Service

_WAIT_S = 10.0
_STYLES = {
    StepStatus.WAITING: "dim",
    StepStatus.RUNNING: "bold yellow",
    StepStatus.SUCCESS: "green",
    StepStatus.FAILED: "bold red",
}


class View(Protocol):
    def show(self, task: Task) -> None:
        """The task has changed."""


async def follow(service: Service, task_id: str, view: View) -> Task:
    """Shows the task at each change until it is no longer RUNNING, and returns it."""
    task = await service.task(task_id)
    view.show(task)
    while task.status is TaskStatus.RUNNING:  # ends with the task; its sub-steps are bounded in time
        task = await service.wait_task(task_id, task.revision, _WAIT_S)
        view.show(task)
    return task


@contextmanager
def task_view(console: Console | None = None) -> Iterator[View]:
    """The view that fits where stderr goes."""
    console = console or stderr()
    if not console.is_terminal:
        yield LineView(console)
        return
    view = LiveView()
    with Live(get_renderable=view.render, console=console, refresh_per_second=4):
        yield view


class LineView:
    """One line for each sub-step that begins or ends, and for each new thing that it waits for."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._told: set[tuple[object, ...]] = set()

    def show(self, task: Task) -> None:
        for row in task.steps:
            if row.begin is not None:
                self._tell(row, row.attempts, row.status, "")
            if row.status is StepStatus.RUNNING and row.progress.get("waiting_for"):
                self._tell(row, row.attempts, row.status, waits(row))
        if task_waits := between_nodes(task):
            self._print(("between nodes", task_waits), task_waits)
        if task.status is not TaskStatus.RUNNING:
            self._print(("end", task.execute_times, task.status), summary(task, datetime.now(UTC)))

    def _tell(self, row: StepRow, attempt: int, status: StepStatus, more: str) -> None:
        text = f"{row.node}: {row.order:>2} {row.name}: {status}{f', {more}' if more else took(row, None)}"
        if status is StepStatus.FAILED:
            text += f": {row.desc}"
        self._print((row.node, row.order, attempt, status, more), text)

    def _print(self, key: tuple[object, ...], text: str) -> None:
        if key not in self._told:
            self._told.add(key)
            self._console.print(Text(text))


class LiveView:
    """A header and the table of the sub-steps of the nodes in work."""

    def __init__(self) -> None:
        self._task: Task | None = None

    def show(self, task: Task) -> None:
        self._task = task

    def render(self) -> Group:
        if self._task is None:
            return Group()
        now = datetime.now(UTC)
        parts: list[Text | Table] = [Text(summary(self._task, now), style="bold")]
        if task_waits := between_nodes(self._task):
            parts.append(Text(task_waits, style="bold yellow"))
        parts += [self._table(node, self._task, now) for node in self._task.current]
        return Group(*parts)

    def _table(self, node: str, task: Task, now: datetime) -> Table:
        table = Table(title=node, title_justify="left", box=None, pad_edge=False, show_header=False)
        for row in task.steps_of(node):
            more = (
                waits(row) if row.status is StepStatus.RUNNING else row.desc if row.status is StepStatus.FAILED else ""
            )
            style = _STYLES[row.status]
            table.add_row(
                Text(f"{row.order:>2}", style=style),
                Text(row.name, style=style),
                Text(str(row.status), style=style),
                Text(took(row, now).removeprefix(", ")),
                Text(more),
            )
        return table


def summary(task: Task, now: datetime) -> str:
    """One line: status, nodes, bytes, and the time left once it can be told."""
    words = [f"task {task.id} {_state(task)}"]
    words.append(f"{len(task.completed)} of {len(task.total)} nodes done")
    words.append(f"{size(task.bytes_moved)} moved")
    if task.status is TaskStatus.RUNNING and not task.at_rest:
        words.append(_left(eta(task, now)))
    elif task.ended_at is not None:
        words.append(f"took {(task.ended_at - task.created_at).total_seconds():.0f} s")
    if task.fail_message and task.status is not TaskStatus.SUCCESS:
        words.append(task.fail_message)
    return ", ".join(words)


def _left(told: Eta | None) -> str:
    if told is None:
        return "time left not known yet"
    return f"about {told.left_s:.0f} s left ({told.low_s:.0f} to {told.high_s:.0f})"


def _state(task: Task) -> str:
    if task.status is not TaskStatus.RUNNING:
        return str(task.status)
    if task.aborting:
        return "ABORTING"
    if task.paused:
        return "PAUSED" if task.at_rest else "RUNNING, pauses before the next node"
    return str(task.status)


def between_nodes(task: Task) -> str:
    """What keeps a running task from going to the next node; empty when nothing does."""
    if task.status is not TaskStatus.RUNNING or not (task.at_rest or task.waiting_for) or not task.blocked_by:
        return ""
    return f"waits for {task.blocked_by}"


def waits(row: StepRow) -> str:
    """What a running sub-step waits for, and how much is left; empty when it has not said."""
    said = row.progress
    words = [f"waits for {said['waiting_for']}"] if said.get("waiting_for") else []
    if said.get("shards_left") is not None:
        words.append(f"{said['shards_left']} shards left")
    left = said.get("bytes_left")
    if isinstance(left, int):
        words.append(f"{size(left)} left")
    return ", ".join(words)


def took(row: StepRow, now: datetime | None) -> str:
    """`, 1.2 s` for a sub-step that has ended, or has been running until `now`; else empty."""
    end = row.end or now
    return f", {max((end - row.begin).total_seconds(), 0):.1f} s" if row.begin and end else ""


def size(count: int) -> str:
    """Bytes for people."""
    value = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 1024:  # noqa: PLR2004 - the units' step
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} TiB"
