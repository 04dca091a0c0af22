"""The dry run of a plan, for the person at the terminal."""

from __future__ import annotations

from shardlift.cli.output import print_fields, print_table, say
from shardlift.model import Forecast, NodeForecast, Plan

_NAMED_MAX = 3
_KIB = 1024


def print_forecast(forecast: Forecast, plan: Plan | None) -> None:
    """Each node of the plan with where its copies go, then the totals. `plan` None: something blocks it."""
    versions = {node.name: node.from_version for node in plan.nodes} if plan else {}
    rows = [
        (one.batch, one.name, versions.get(one.name), one.copies, _size(one.size_bytes), _targets(one), _rest(one))
        for one in forecast.nodes
    ]
    print_table(["BATCH", "NODE", "FROM", "COPIES", "SIZE", "TO", "BESIDES"], rows, empty="")
    print_fields(
        {
            "copies to move": forecast.copies,
            "bytes to copy": _size(forecast.size_bytes),
            "fullest disk": _fullest(forecast),
            "without a node at the end": forecast.waiting,
        }
    )
    first = plan.stand_in if plan else None
    if first is not None:
        say(f"while masters move, {first.spare} in {first.spare_zone} is one master more: it joins first and goes last")
    if not forecast.ends:
        say("a drain cannot end: see the findings of the rule drain_can_end")


def _fullest(forecast: Forecast) -> str | None:
    """The disk that comes nearest to being full at any time of the plan."""
    known = [(one, one.total_bytes) for one in forecast.peaks if one.total_bytes]
    shares = [(one.used_bytes / total_bytes, one.node, total_bytes) for one, total_bytes in known]
    if not shares:
        return None
    share, name, total_bytes = max(shares)
    return f"{share:.0%} of {_size(total_bytes)} on {name}"


def _size(size_bytes: int) -> str:
    """In the largest unit of which there is at least one."""
    size = float(size_bytes)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < _KIB:
            return f"{size:.{0 if unit == 'B' else 1}f} {unit}"
        size /= _KIB
    return f"{size:.1f} TiB"


def _targets(node: NodeForecast) -> str:
    shown = [f"{one.node} {one.copies} ({_size(one.size_bytes)})" for one in node.targets[:_NAMED_MAX]]
    more = len(node.targets) - len(shown) + node.other_targets
    return ", ".join(shown) + (f" and {more} more" if more else "")


def _rest(node: NodeForecast) -> str:
    """What happens to copies that do not move, in words."""
    said = (
        (node.held, "can go nowhere and are nowhere else"),
        (node.kept, "can go nowhere but are started elsewhere"),
        (node.dropped, "given up by the engine meanwhile"),
        (node.waiting, "wait on its disk for its return"),
        (node.alone, "of these started nowhere else"),
        (node.rebuilt, "made again after its return"),
    )
    return ", ".join(f"{count} {words}" for count, words in said if count)
