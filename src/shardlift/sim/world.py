"""One simulated cluster: its state, its clock's events, its clients, and what operators do to it.

Time passes lazily: whoever calls in lets everything happen that was due since (`advance`), in order, each event at its
own time. So the same world runs on a real clock, a fast one, or one in which waiting takes no time, and two runs
with the same calls at the same times are alike to the letter. docs/simulator.md tells what is modelled and after what.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager

from shardlift.clock import Clock
from shardlift.errors import EngineError
from shardlift.model import CopyState
from shardlift.sim import membership, movement
from shardlift.sim.in_force import InForce
from shardlift.sim.keepers import Keeper, Unkept
from shardlift.sim.parts import Copy, Data, Due, Group, IndexSpec, Move, Shard, SimIndex, SimNode
from shardlift.sim.routing import Routing, Tally

_BAD_REQUEST = 400
_KNOWN = ("cluster.routing.", "cluster.max_shards_per_node", "indices.recovery.", "search.", "action.")
_FULL = 0.97


Event = Callable[[], str]

_EVENTS: dict[str, Callable[..., str]] = {**membership.EVENTS, **movement.EVENTS}


class World:
    """`effects` lists what was done to hosts, in order. `on_event` is told each event in a few words."""

    def __init__(self, nodes: list[SimNode], indices: list[SimIndex], copies: list[Copy], clock: Clock) -> None:
        self.nodes = {node.name: node for node in nodes}
        self.indices = {index.name: index for index in indices}
        self.copies = copies
        self.shards: dict[Group, Shard] = {copy.group: Shard() for copy in copies}
        self.persistent: dict[str, str] = {}
        self.transient: dict[str, str] = {}
        self.voting_excluded: set[str] = set()
        self.voters: tuple[str, ...] = tuple(node.node_id for node in nodes if node.eligible)
        self.elected: str | None = None
        self.led_away: set[str] = set()
        self.requests: dict[str, int] = {}
        self.effects: list[tuple[str, str]] = []
        self.moves: list[Move] = []
        self.recovered: list[Move] = []
        self.flow: movement.Flow | None = None
        self.flow_number = 0
        self.snapshotting: frozenset[Group] = frozenset()
        self.failed_writes = 0
        self.on_event: Callable[[str], None] = lambda _line: None
        self.keeper: Keeper = Unkept()
        self.clock = clock
        self.speed = 1.0
        self.now_s = clock.elapsed_s()
        self.due: list[tuple[float, int, Due | Event]] = []
        self.last_number = 0
        self.write_every_s = 0.0
        self.next_write_s = 0.0
        self.routing = Routing(copies)
        self._in_force = InForce({}, {})

    # time

    def advance(self) -> None:
        """Lets everything happen that is due by now."""
        self.keeper.refresh(self)
        until_s = self.clock.elapsed_s()
        while self.due and self.due[0][0] <= until_s:
            at_s, _, event = heapq.heappop(self.due)
            self._writes_until(at_s)
            self.now_s = max(self.now_s, at_s)
            line = _EVENTS[event.name](self, *event.arguments) if isinstance(event, Due) else event()
            if line:
                self.on_event(line)
        self._writes_until(until_s)
        self.now_s = max(self.now_s, until_s)

    @contextmanager
    def changing(self) -> Iterator[None]:
        """Frames a change from outside: nobody else changes the world meanwhile, and it is written down in the end.

        The body must not await. What time brings by itself needs no frame: it comes again from what was written.
        """
        with self.keeper.hold(self):
            yield

    def at(self, seconds: float, event: Event) -> None:
        """Schedules an event in so many seconds from now; it returns a line about what happened, or nothing."""
        heapq.heappush(self.due, (self.now_s + seconds, self.new_number(), event))

    def later(self, seconds: float, name: str, *arguments: str | int) -> None:
        """The same for an event that has a name, which is what a world that is written down can keep."""
        heapq.heappush(self.due, (self.now_s + seconds, self.new_number(), Due(name, arguments)))

    @staticmethod
    def named(name: str, arguments: Sequence[str | int]) -> Due:
        """An event of that name as it was written down. Raises KeyError for a name that is none."""
        _EVENTS[name]  # a file of another version must be refused now, not when its time has come
        return Due(name, tuple(arguments))

    def next_event_s(self) -> float | None:
        """When the next event is due, clients' writes aside."""
        return self.due[0][0] if self.due else None

    def new_number(self) -> int:
        self.last_number += 1
        return self.last_number

    def new_flow(self) -> int:
        """The number of the recovery event that counts from now on; earlier ones come to nothing."""
        self.flow_number = self.new_number()
        return self.flow_number

    def wall_ms(self, at_s: float) -> int:
        """Wall time of that moment, as the nodes' own clocks have it."""
        return int((self.clock.now().timestamp() - (self.clock.elapsed_s() - at_s) / self.speed) * 1000)

    # looking

    def group(self, group: Group) -> list[Copy]:
        return self.routing.group(group)

    def primary(self, group: Group) -> Copy | None:
        """The primary if it is assigned."""
        return next((copy for copy in self.group(group) if copy.primary and copy.node is not None), None)

    def copies_on(self, name: str) -> list[Copy]:
        return self.routing.on(name)

    def placed_on(self, name: str) -> Collection[Copy]:
        """Copies that are on the node or on their way to it."""
        return self.routing.placed(name)

    def tallied(self, name: str) -> Tally:
        """What `placed_on` counts on the node."""
        return self.routing.tally(name, self.indices)

    def used_bytes(self, node: SimNode) -> int:
        return node.filler_bytes + self.tallied(node.name).bytes

    def setting(self, key: str) -> str:
        return self.transient.get(key, self.persistent.get(key, ""))

    @property
    def in_force(self) -> InForce:
        """What both layers of settings come to. Read again once they have changed, whoever has changed them."""
        if not self._in_force.holds(self.persistent, self.transient):
            self._in_force = InForce(self.persistent, self.transient)
        return self._in_force

    def quorum_without(self, names: Collection[str]) -> bool:
        """Whether the voters that work are a majority of the configuration in force without those nodes."""
        return self._majority({node.node_id for node in self.nodes.values() if node.working and node.name not in names})

    def quorum_with(self, joining: SimNode) -> bool:
        """Whether the voters that work are a majority once that node is a member, so that its join can be published."""
        return self._majority({node.node_id for node in self.nodes.values() if node.working} | {joining.node_id})

    def _majority(self, ids: Collection[str]) -> bool:
        return 2 * len({*ids} & {*self.voters}) > len(self.voters)

    def lost(self, *, without: str | None = None) -> dict[Group, int]:
        """By shard, how many acknowledged operations nobody has any more, on no disk, set aside or not.

        `without`: as if what that node has set aside were gone already.
        """
        best: dict[Group, int] = {}
        for copy in self.copies:
            if copy.node is not None and copy.state is not CopyState.INITIALIZING:
                best[copy.group] = max(best.get(copy.group, 0), copy.documents)
        for node in self.nodes.values():
            kept = [node.disk, *(node.set_aside.values() if node.name != without else ())]
            for group, data in ((group, data) for disk in kept for group, data in disk.items()):
                if group in self.shards and data.aid in self.shards[group].in_sync:
                    best[group] = max(best.get(group, 0), data.documents)
        missing = {group: shard.acknowledged - best.get(group, 0) for group, shard in self.shards.items()}
        return {group: count for group, count in missing.items() if count > 0}

    # clients

    def write_every(self, seconds: float) -> None:
        """From now on clients write one document to each shard so often; 0 ends it."""
        self.write_every_s, self.next_write_s = seconds, self.now_s + seconds

    def write(self) -> None:
        """One document to each shard. Acknowledged once every copy in sync has it; refused where that cannot be."""
        for group, shard in self.shards.items():
            if self.indices[group[0]].closed:
                continue
            primary = next((copy for copy in self.group(group) if copy.primary and copy.serving), None)
            others = [copy for copy in self.group(group) if copy.serving and not copy.primary]
            holders = [] if primary is None else [primary, *others]
            if primary is None or not all(self.nodes[copy.node or ""].working for copy in holders):
                # A node that hangs or has just died is still thought to be there: the write waits, and times out.
                self.failed_writes += 1
                continue
            for copy in holders:
                copy.documents = primary.documents + 1 if copy is not primary else copy.documents
            primary.documents += 1
            self.nodes[primary.node or ""].writes += 1
            shard.acknowledged = primary.documents
            shard.in_sync = {copy.aid for copy in holders}

    def _writes_until(self, until_s: float) -> None:
        while self.write_every_s and self.next_write_s <= until_s:
            self.write()
            self.next_write_s += self.write_every_s

    # what operators do

    def put_cluster_setting(self, layer: str, key: str, value: str | None) -> None:
        """As `PUT _cluster/settings` would; None deletes. Raises EngineError with status 400."""
        self.advance()
        if value is not None and not key.startswith(_KNOWN):
            raise EngineError(f"PUT /_cluster/settings: unknown setting [{key}]", status=_BAD_REQUEST)
        archived = sorted(one for one in {*self.persistent, *self.transient} if one.startswith("archived."))
        if archived and not key.startswith("archived."):
            raise EngineError(f"PUT /_cluster/settings: unknown setting [{archived[0]}]", status=_BAD_REQUEST)
        where = {"persistent": self.persistent, "transient": self.transient}[layer]
        if value is not None:
            where[key] = value
        else:
            for gone in [one for one in where if one == key or (key == "archived.*" and one.startswith("archived."))]:
                del where[gone]
        self.changed()

    def create_index(self, spec: IndexSpec) -> None:
        self.advance()
        eldest = min((node for node in self.nodes.values() if node.up), key=lambda node: node.release)
        engine, oldest = eldest.engine, eldest.version
        self.indices[spec.name] = SimIndex(
            spec.name, spec.primaries, spec.replicas, spec.copy_bytes, engine, oldest, dict(spec.settings)
        )
        for shard in range(spec.primaries):
            self.shards[spec.name, shard] = Shard()
            for number in range(spec.replicas + 1):
                self.copies.append(
                    Copy(spec.name, shard, number == 0, CopyState.UNASSIGNED, None, reason="INDEX_CREATED")
                )
        self.index_groups()
        self.changed()

    def put_index_setting(self, name: str, key: str, value: str | None) -> None:
        """As `PUT {index}/_settings` would; None deletes."""
        self.advance()
        index = self.indices[name]
        if key == "index.number_of_replicas":
            movement.set_replicas(self, index, int(value or 1))
        elif value is None:
            index.settings.pop(key, None)
        else:
            index.settings[key] = value
        self.changed()

    def delete_index(self, name: str) -> None:
        self.advance()
        del self.indices[name]
        self.copies[:] = [copy for copy in self.copies if copy.index != name]
        self.shards = {group: shard for group, shard in self.shards.items() if group[0] != name}
        self.moves = [move for move in self.moves if move.copy.index != name]
        for node in self.nodes.values():
            for disk in (node.disk, *node.set_aside.values()):
                for group in [group for group in disk if group[0] == name]:
                    del disk[group]
        self.index_groups()
        self.changed()

    def start_snapshot(self) -> None:
        """Of all primaries there are."""
        self.advance()
        self.snapshotting = frozenset(self.shards)

    def end_snapshot(self) -> None:
        self.advance()
        self.snapshotting = frozenset()
        self.changed()

    def fill_disk(self, name: str) -> None:
        self.advance()
        node = self.nodes[name]
        node.filler_bytes = int(node.disk_bytes * _FULL) - (self.used_bytes(node) - node.filler_bytes)
        self.changed()

    def free_disk(self, name: str) -> None:
        self.advance()
        node = self.nodes[name]
        node.filler_bytes = node.disk_bytes // 5
        self.changed()

    def mend(self) -> None:
        """All that a person puts right after a failure: disks are freed, and nodes would start again."""
        self.advance()
        for node in self.nodes.values():
            node.starts = True
            node.filler_bytes = min(node.filler_bytes, node.disk_bytes // 5)
        self.changed()

    # processes

    def start(self, node: SimNode) -> None:
        """The engine's process begins; HTTP and membership follow after `boot_s`."""
        self.advance()
        membership.begin(self, node)

    def stop(self, node: SimNode) -> None:
        """The process ends as after SIGTERM: the others know it at once."""
        self.advance()
        membership.end(self, node)
        membership.leave(self, node)

    def kill_node(self, name: str) -> None:
        """The process is gone from one moment to the next; the others notice a little later."""
        self.advance()
        node = self.nodes[name]
        if node.pid is None:
            raise KeyError(f"{name} does not run")
        membership.end(self, node)
        membership.notice(self, node)

    def hang_node(self, name: str) -> None:
        self.advance()
        node = self.nodes[name]
        if node.pid is None or not node.up:
            raise KeyError(f"{name} is no member")
        node.hung = True
        membership.notice(self, node)

    def unhang_node(self, name: str) -> None:
        self.advance()
        membership.wake(self, self.nodes[name])

    def load_at_once(self, index: str, *, renewed_after_s: float = 30.0) -> None:
        """As after a bulk load: until the engine renews them, which it does every 30 s, leases retain all of it."""
        self.advance()
        self.indices[index].leases_renewed_s = self.now_s + renewed_after_s

    # inner work

    def changed(self) -> None:
        """Something that allocation depends on has changed."""
        movement.reroute(self)

    def index_groups(self) -> None:
        """After copies were added or taken away, or have another size."""
        self.routing.index(self.copies)

    def keep(self, node: SimNode) -> None:
        """The node serves nothing any more; its disk still has what it served, or had before and was catching up."""
        replaying = [move.copy for move in self.moves if move.replay and move.target == node.name]
        for copy in self.copies_on(node.name):
            if copy.serving or copy in replaying:
                leased = self.now_s >= self.indices[copy.index].leases_renewed_s
                node.disk[copy.group] = Data(copy.aid, copy.documents, leased)
