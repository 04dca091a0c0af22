"""The demo from beginning to end."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
import time
from collections.abc import Awaitable
from contextlib import suppress
from typing import TypeVar

from rich.console import Console
from rich.table import Table
from rich.text import Text

from shardlift.demo.css_client import CssClient
from shardlift.demo.report import Report, failing_step
from shardlift.demo.server import log_tail, serving
from shardlift.demo.stage import DemoOptions, Pull, Say, Stage, staged, under_load
from shardlift.demo.watch import Watcher, watch
from shardlift.model import Task
from shardlift.tls import client_context

__all__ = ["DemoOptions", "ended_in_order", "run_demo", "upgraded"]

T = TypeVar("T")

_UPGRADE_TIMEOUT_S = 3600.0
TERMINATED = 143


def run_demo(options: DemoOptions, pull: Pull, *, as_json: bool) -> int:
    """Runs the demo and shows what it came to: 0 when nothing was lost and every node runs the target, else 1."""
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    begin = time.monotonic()

    def say(text: str) -> None:
        console.print(Text(f"[{time.monotonic() - begin:6.1f} s] {text}"))

    try:
        report = asyncio.run(ended_in_order(_demo(options, pull, say)))
    except asyncio.CancelledError:
        say("ended by a signal; everything was cleaned up")
        return TERMINATED
    except KeyboardInterrupt:
        say("interrupted; everything was cleaned up")
        raise
    _show(report, say, as_json=as_json)
    return 1 if report.problems else 0


async def _demo(options: DemoOptions, pull: Pull, say: Say) -> Report:
    async with staged(options, pull, say) as stage:
        return await upgraded(stage, options, say)


async def ended_in_order(work: Awaitable[T]) -> T:
    """Lets SIGTERM cancel the work, as asyncio lets Ctrl-C: engines are no children of ours, so ours to remove."""
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    return await work


async def upgraded(stage: Stage, options: DemoOptions, say: Say) -> Report:
    """Upgrades the stage's cluster through the CSS API under load. On any failure the server's log is shown."""
    watcher = Watcher(say)
    home = stage.settings.home
    try:
        trusted = client_context(stage.settings)
        async with serving(home) as url, CssClient(stage.credentials, url=url, verify=trusted) as css:
            say(f"`shardlift serve` answers at {url}")

            async def act() -> str:
                upgrade_type = await css.upgrade_type_to(stage.cluster.id, stage.target.id)
                await css.upgrade(stage.cluster.id, stage.target.id, upgrade_type)
                # Not that of the options: what comes by the CSS API drains a cluster whose strategy is auto.
                strategy = (await _task(stage)).strategy
                say(f"CSS API: upgrade ({upgrade_type}) to {stage.target.reference}, strategy {strategy}")
                return await watch(css, stage.cluster.id, watcher, timeout_s=_UPGRADE_TIMEOUT_S)

            seen = await under_load(stage, act, say)
    except Exception:
        say(f"the end of the server's log:\n{log_tail(home)}")
        await _tell_failure(stage, say)
        raise
    task = await _task(stage)
    if seen.result != "SUCCESS":
        say(f"the end of the server's log:\n{log_tail(home)}")
    return Report(
        source=options.source,
        target=stage.target,
        strategy=task.strategy,
        task=task,
        status=seen.result,
        seen=seen,
        objections=tuple(watcher.objections),
    )


async def _task(stage: Stage) -> Task:
    return (await stage.service.tasks(stage.cluster.id)).items[0]


async def _tell_failure(stage: Stage, say: Say) -> None:
    with suppress(IndexError):
        for line in failing_step(await _task(stage)):
            say(line)


def _show(report: Report, say: Say, *, as_json: bool) -> None:
    for line in failing_step(report.task):
        say(line)
    for problem in report.problems:
        say(f"problem: {problem}")
    figures = report.figures()
    if as_json:
        document = {name: value for name, _, value in figures}
        document |= {"ok": not report.problems, "problems": list(report.problems), "versions": report.seen.versions}
        sys.stdout.write(json.dumps(document, indent=2) + "\n")
        return
    table = Table(title="upgraded, nothing lost" if not report.problems else "NOT good", title_justify="left")
    table.add_column("what")
    table.add_column("seen", justify="right")
    for _, words, value in figures:
        table.add_row(words, f"{value:,}" if isinstance(value, int) else str(value))
    Console(highlight=False).print(table)
