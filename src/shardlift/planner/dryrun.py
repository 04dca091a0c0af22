"""The dry run of a whole plan: node by node, where every copy goes, and which can go nowhere. Pure."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from shardlift.allocation import Chooser, Copy, Drained, Place, State, bring_back, build_state, drain, take_down, wipe
from shardlift.checks import Subject, held_settings
from shardlift.model import (
    ClusterSettings,
    DiskPeak,
    EngineKind,
    Finding,
    Forecast,
    Inflow,
    Leaving,
    Move,
    NodeForecast,
    NodePlan,
    Plan,
    Severity,
)
from shardlift.planner.obstacles import Obstacles, stuck_findings
from shardlift.planner.planner import draft_plan, plan_upgrade
from shardlift.planner.settling import settling
from shardlift.planner.surge import spare_nodes

_TARGETS_MAX = 8
# What the engine is asked about at once.
_FIRST_MOVES_MAX = 100


def plan_and_forecast(subject: Subject) -> tuple[Plan | None, Forecast | None, tuple[Finding, ...]]:
    """The plan, its dry run, and the findings of both; no plan when a finding blocks, but a dry run all the same.

    So all that is in the way is told at once. No dry run when there is nothing to do.
    """
    plan, findings = plan_upgrade(subject)
    draft = plan or draft_plan(subject)
    if not draft.batches:
        return plan, None, findings
    told = forecast(subject, draft)
    findings += stuck_findings(subject, told)
    if any(finding.severity is Severity.BLOCK for finding in findings):
        plan = None
    if plan is not None:
        plan = _told_what_moves(plan, told)
    return plan, told, findings


def _told_what_moves(plan: Plan, told: Forecast) -> Plan:
    batches = tuple(tuple(replace(node, leaving=told.leaving[node.name]) for node in batch) for batch in plan.batches)
    return replace(plan, batches=batches, settling=told.settling)


def forecast(subject: Subject, plan: Plan, on_move: Callable[[Move], None] | None = None) -> Forecast:
    """Walks the plan, with the forced zones as they are held meanwhile. `on_move` is told each move off a drained node,
    in order."""
    release = (subject.image.engine is EngineKind.OPENSEARCH, subject.image.version)
    seen = replace(subject.seen, settings=held_settings(subject))
    state = build_state(seen, (*subject.cluster.nodes, *spare_nodes(plan, subject)), release)
    return _Walk(state, plan, on_move or (lambda _move: None)).run(subject.seen.settings)


@dataclass(slots=True)
class _Tally:
    """What is counted of one node while it is taken."""

    copies: int = 0
    size_bytes: int = 0
    targets: Counter[str] = field(default_factory=Counter)
    bytes_to: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    kept: int = 0
    held: int = 0
    dropped: int = 0
    rebuilt: int = 0
    rebuilt_bytes: int = 0
    waiting: int = 0
    alone: int = 0

    def add(self, target: str, size_bytes: int) -> None:
        self.copies += 1
        self.size_bytes += size_bytes
        self.targets[target] += 1
        self.bytes_to[target] += size_bytes

    def frozen(self, node: NodePlan, batch: int) -> NodeForecast:
        order = sorted(self.targets, key=lambda name: (-self.bytes_to[name], -self.targets[name], name))
        return NodeForecast(
            name=node.name,
            batch=batch,
            drained=node.drained,
            copies=self.copies,
            size_bytes=self.size_bytes,
            targets=tuple(Inflow(name, self.targets[name], self.bytes_to[name]) for name in order[:_TARGETS_MAX]),
            other_targets=len(order[_TARGETS_MAX:]),
            kept=self.kept,
            held=self.held,
            dropped=self.dropped,
            rebuilt=self.rebuilt,
            rebuilt_bytes=self.rebuilt_bytes,
            waiting=self.waiting,
            alone=self.alone,
        )


class _Walk:
    def __init__(self, state: State, plan: Plan, on_move: Callable[[Move], None]) -> None:
        self._state, self._plan, self._on_move = state, plan, on_move
        self._chooser = Chooser(state)
        self._obstacles = Obstacles(state)
        self._first_moves: list[Move] = []
        self._leaving: dict[str, Leaving] = {}
        # What has been taken last is empty, and takes what leaves the next ones.
        self._freshest: tuple[Place, ...] = ()

    def run(self, settings: ClusterSettings) -> Forecast:
        """`settings`: those that stand there before the task, and again after it."""
        nodes = [told for number, batch in enumerate(self._plan.batches, start=1) for told in self._take(batch, number)]
        return Forecast(
            strategy=self._plan.strategy,
            nodes=tuple(nodes),
            stuck=self._obstacles.stuck(),
            unlisted_held=self._obstacles.unlisted[True],
            unlisted_kept=self._obstacles.unlisted[False],
            peaks=tuple(
                DiskPeak(place.name, place.peak_bytes, place.total_bytes)
                for place in self._state.places.values()
                if place.peak_bytes
            ),
            first_moves=tuple(self._first_moves),
            waiting=len(self._state.unplaced),
            exhaustive=self._chooser.exhaustive,
            leaving=self._leaving,
            # The last of all: it changes the state.
            settling=settling(self._state, settings, aware=self._plan.aware) if self._plan.settles else None,
        )

    def _take(self, batch: tuple[NodePlan, ...], number: int) -> list[NodeForecast]:
        state, chooser = self._state, self._chooser
        self._raise_spares(batch)
        taken = [(node, state.places[node.name], _Tally()) for node in batch]
        for _, place, _ in taken:
            chooser.close(place)
        for node, place, tally in taken:
            self._leave(node, place, tally)
            self._leaving[node.name] = Leaving(tally.copies, tally.size_bytes)
        for node, place, tally in taken:
            self._down(node, place, tally)
        for node, place, _ in taken:
            self._hand_over(node, place)
        for _, place, tally in taken:
            for copy in bring_back(state, chooser, place):
                tally.rebuilt += 1
                tally.rebuilt_bytes += copy.size_bytes
        self._freshest = tuple(place for node, place, _ in taken if node.drained)
        for node, place, tally in taken:
            self._empty_spare(node, place, tally)
        return [tally.frozen(node, number) for node, _, tally in taken]

    def _leave(self, node: NodePlan, place: Place, tally: _Tally) -> None:
        state, chooser = self._state, self._chooser
        if node.drained:
            freshest = (state.places[node.fills],) if node.fills else self._freshest
            tiers = [freshest] if freshest else []
            self._drain(place, tally, drain(state, chooser, place, tiers=tiers))
        elif node.rescued:
            self._drain(place, tally, drain(state, chooser, place, lambda copy: not copy.elsewhere))

    def _raise_spares(self, batch: tuple[NodePlan, ...]) -> None:
        for name in dict.fromkeys(node.spare for node in batch if node.spare is not None and not node.stands_in):
            if not self._state.places[name].present:
                bring_back(self._state, self._chooser, self._state.places[name])

    def _hand_over(self, node: NodePlan, place: Place) -> None:
        """The spare's copies come back with its folder, under the node's name."""
        if node.spare is None or not node.takes_over:
            return
        spare = self._state.places[node.spare]
        self._chooser.close(spare)
        take_down(self._state, spare)
        for copy in list(spare.copies):
            started = copy.started
            self._state.put(copy, place)
            copy.started = started
        spare.joining = True

    def _empty_spare(self, node: NodePlan, place: Place, tally: _Tally) -> None:
        """The spare's copies move to the node, or to others, and it goes."""
        if node.spare is None or not node.empties_spare or node.stands_in:
            return
        spare = self._state.places[node.spare]
        self._chooser.close(spare)
        self._drain(spare, tally, drain(self._state, self._chooser, spare, tiers=[(place,)]))
        take_down(self._state, spare)
        wipe(self._state, spare)
        spare.joining = True

    def _down(self, node: NodePlan, place: Place, tally: _Tally) -> None:
        if place.present:
            waiting, alone = take_down(self._state, place)
            if not node.drained:
                tally.waiting, tally.alone = waiting, alone
        if node.fresh_data:
            wipe(self._state, place)
        if node.to_zone is not None:
            self._state.relocate(place, node.to_zone)

    def _drain(self, place: Place, tally: _Tally, drained: Drained) -> None:
        first = not self._first_moves
        for copy, target in drained.moved.items():
            tally.add(target.name, copy.size_bytes)
            self._moved(copy, place, target, first=first)
        tally.dropped += len(drained.dropped)
        for copy in drained.stuck:
            held = not copy.elsewhere
            tally.held += held
            tally.kept += not held
            self._obstacles.add(copy, place, held=held)

    def _moved(self, copy: Copy, source: Place, target: Place, *, first: bool) -> None:
        move = Move(copy.group.index.name, copy.group.shard, source.name, target.name)
        self._on_move(move)
        # To a spare that is no member yet the engine would say no.
        if first and target.id and len(self._first_moves) < _FIRST_MOVES_MAX:
            self._first_moves.append(move)
