"""Trials on all cores. Each worker keeps to the folder it was given and runs one trial at a time."""

from __future__ import annotations

import gc
import logging
import multiprocessing
import warnings
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import structlog

from shardlift.chaos.scenario import draw
from shardlift.chaos.trial import Verdict, make_template, run_trial

_AT_ONCE = 4
_GARBAGE = 50_000


def silence() -> None:
    """The transcript tells what the logs would."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    # A process that is killed leaves its connections to the garbage collector, which both would complain about.
    for name in ("asyncio", "sqlalchemy.pool"):
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)
    warnings.filterwarnings("ignore", message="The garbage collector is trying to clean up non-checked-in connection")


def trials(seeds: Iterable[int], home: Path, jobs: int) -> Iterator[Verdict]:
    """The verdicts in the order of the seeds. Raises BrokenProcessPool when a worker dies."""
    template = make_template(home)
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(jobs, mp_context=context, initializer=_prepare) as pool:
        yield from pool.map(partial(_trial, home, template), seeds, chunksize=_AT_ONCE)


def _prepare() -> None:
    silence()
    gc.freeze()
    gc.set_threshold(_GARBAGE)  # a trial makes much garbage and is short: looking for cycles took a tenth of its time


def _trial(home: Path, template: Path, seed: int) -> Verdict:
    return run_trial(draw(seed), home, template)
