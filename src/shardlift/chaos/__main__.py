"""`python -m shardlift.chaos`: many seeds on all cores, or one with its transcript. `make sim` calls it."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from shardlift.chaos.pool import silence, trials
from shardlift.chaos.scenario import draw
from shardlift.chaos.trial import Verdict, make_template, run_trial

_SHOWN_MAX = 10


def main(argv: list[str] | None = None) -> int:
    """0 when no invariant was violated in any trial, 1 when one was, 2 for wrong words."""
    options = _options(argv)
    silence()
    if options.seed is not None:
        return _one(options.seed)
    return _many(range(options.first, options.first + options.seeds), options.jobs or os.cpu_count() or 1)


def _options(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make sim", description="simulated upgrades under faults")
    parser.add_argument("--seeds", type=_positive, default=200, help="how many trials, from --first on")
    parser.add_argument("--first", type=int, default=1, help="the first seed")
    parser.add_argument("--seed", type=int, help="repeat this one trial, and print its transcript")
    parser.add_argument("--jobs", type=_positive, help="processes; by default one per core")
    return parser.parse_args(argv)


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is not 1 or more")
    return number


@contextmanager
def _home() -> Iterator[Path]:
    """In memory where the machine has such a folder: what a trial keeps need not outlive it."""
    memory = Path("/dev/shm")  # noqa: S108  (a private folder is made in it)
    with tempfile.TemporaryDirectory(prefix="shardlift-sim-", dir=memory if memory.is_dir() else None) as home:
        yield Path(home)


def _one(seed: int) -> int:
    with _home() as home:
        verdict = run_trial(draw(seed), home, make_template(home))
    print("\n".join(verdict.transcript))
    print(f"seed {seed}: {verdict.outcome} after {verdict.virtual_s:.0f} virtual s, {verdict.kills} crashes")
    for violation in verdict.violations:
        print(f"VIOLATED {violation}")
    return 1 if verdict.violations else 0


def _many(seeds: range, jobs: int) -> int:
    begun_s = time.monotonic()
    outcomes: Counter[str] = Counter()
    bad: list[Verdict] = []
    virtual_s, kills = 0.0, 0
    with _home() as home:
        for verdict in trials(seeds, home, jobs):
            outcomes[verdict.outcome] += 1
            virtual_s += verdict.virtual_s
            kills += verdict.kills
            if verdict.violations:
                bad.append(verdict)
                if len(bad) <= _SHOWN_MAX:
                    print(f"seed {verdict.seed}: {verdict.violations[0]}", flush=True)
    told = ", ".join(f"{count} {outcome}" for outcome, count in outcomes.most_common())
    print(
        f"sim: {len(seeds)} trials ({told}), {kills} crashes, {virtual_s / 3600:.0f} virtual hours in "
        f"{time.monotonic() - begun_s:.0f} s; {len(bad)} with a violated invariant"
    )
    for verdict in sorted(bad, key=lambda one: one.seed)[:_SHOWN_MAX]:
        print(f"repeat with: make sim SEED={verdict.seed}")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
