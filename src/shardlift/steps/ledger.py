"""Changes to the cluster that must be taken back: written down first, made second, undone in reverse order.

Only our own part is undone. A key that somebody else has changed since is left as they set it, and that is noted.
"""

from __future__ import annotations

from collections.abc import Collection

from shardlift.checks import archived_removal
from shardlift.engine.protocol import Engine
from shardlift.errors import EngineError
from shardlift.model import ClusterSettings
from shardlift.store import Journal, SettingChange
from shardlift.store.codec import spare_from
from shardlift.store.leases import SPARE

VALUE, TOKEN, VOTING, LIMIT = _KINDS = "value", "token", "voting", "limit"
_BAD_REQUEST = 400


class ArchivedSettingsError(EngineError):
    """The engine refuses every change of settings while it keeps some that it does not know."""

    def __init__(self, settings: ClusterSettings) -> None:
        super().__init__(
            "no_archived_settings: the cluster refuses every change of its settings because it keeps unknown ones: "
            f"{', '.join(settings.archived)}",
            remedy=f"{archived_removal(settings)}, then retry",
            status=_BAD_REQUEST,
        )


class Ledger:
    """The ledger of one cluster under one lease. `task_id` is the task that new changes belong to."""

    def __init__(self, journal: Journal, engine: Engine, task_id: str) -> None:
        self._journal = journal
        self._engine = engine
        self._task_id = task_id

    async def reassert(self) -> tuple[str, ...]:
        """Sets again what somebody else has changed of this task's values; theirs is what is put back in the end.

        Returns a line for each. A value that never got set (a crash came between) is set without one.
        """
        notes: list[str] = []
        changes = [one for one in await self._journal.open_changes() if one.kind == VALUE]
        settings = await self._engine.settings() if changes else ClusterSettings()
        for change in changes:
            now = settings.layer(change.layer).get(change.key)
            if change.task_id != self._task_id or now == change.ours:
                continue
            notes += [note] if (note := await self._take_back(change, now)) else []
        return tuple(notes)

    async def _take_back(self, change: SettingChange, now: str | None) -> str:
        """Sets our value again. Returns a line when somebody else has changed it, whose value is remembered."""
        note = ""
        if now != change.before:
            note = f"{change.key} was set to {now!r} by somebody else; it is held at {change.ours!r} until the end"
            # The new row first: were it the other way round, a crash in between would forget our hold.
            await self._add(VALUE, change.layer, change.key, before=now, ours=change.ours)
            await self._journal.change_restored(change.id, note)
        self._journal.lease.check()
        await self._put(change.layer, change.key, change.ours)
        return note

    async def own_tokens(self) -> frozenset[str]:
        """Exclusions, of allocation or voting, that are ours and in force."""
        changes = await self._journal.open_changes()
        return frozenset(change.ours for change in changes if change.kind in {TOKEN, VOTING})

    async def set_value(self, key: str, value: str) -> None:
        """Sets a key in the layer that is in force. Does nothing when this task holds it at that value already."""
        held = await self._held(VALUE, key)
        settings = await self._engine.settings()
        layer = _layer_in_force(settings, key) if held is None else held.layer
        now = settings.layer(layer).get(key)
        if now == value:
            return
        if held is not None:
            await self._take_back(held, now)
            return
        await self._add(VALUE, layer, key, before=now, ours=value)
        self._journal.lease.check()
        await self._put(layer, key, value)

    async def set_if_unset(self, key: str, value: str) -> None:
        """Sets a key that nobody has set; does nothing when it has a value that is not ours."""
        if await self._held(VALUE, key) is not None or (await self._engine.settings()).effective(key) is None:
            await self.set_value(key, value)

    async def kept_from(self, key: str) -> SettingChange | None:
        """This task's own row of a value, with what was there before it."""
        return await self._held(VALUE, key)

    async def value_disputed(self, key: str) -> bool:
        """Whether somebody else has set a key that this task holds, or held when it failed: then it stays theirs.

        Two open rows are left by a crash between the two writes in which that is written down.
        """
        held = [one for one in await self._journal.open_changes() if (one.kind, one.key) == (VALUE, key)]
        return len(held) > 1 or await self._journal.disputed(self._task_id, key)

    async def keep_value(self, key: str, value: str) -> None:
        """From now on what `restore` puts back is `value`, not what was there before this task.

        With a key that the task does not hold yet the value is set first. Whatever crashes in between, the row says
        what may be found there, and to do it again ends with the same. What somebody else has set is left.
        """
        held = await self._held(VALUE, key)
        if held is None or held.ours == value:
            settings = await self._engine.settings()
            if held is None or settings.layer(held.layer).get(key) == held.before:
                await self.set_value(key, value)
                held = await self._held(VALUE, key)
        if held is not None:
            await self._journal.change_before(held.id, value)

    async def add_token(self, key: str, token: str) -> None:
        """Adds one item to a comma-joined list; what others have in it stays."""
        settings = await self._engine.settings()
        layer = _layer_in_force(settings, key)
        items = _items(settings, layer, key)
        if await self._held(TOKEN, key, token) is None:
            if token in items:
                return
            await self._add(TOKEN, layer, key, before=settings.layer(layer).get(key), ours=token)
        if token not in items:
            self._journal.lease.check()
            await self._put(layer, key, ",".join([*items, token]))

    # a limit that others may change at any time: theirs is the last word

    async def limit_disputed(self, key: str) -> bool:
        """Whether somebody else had changed it when this task failed, and was retried: then it stays theirs."""
        return await self._journal.disputed(self._task_id, key)

    async def set_limit(self, key: str, value: str | None, *, known: Collection[str | None] | None) -> bool:
        """Sets a limit, with None to what was there before us. Returns False when somebody else has changed it.

        `known`: what may stand there if nobody has; None: what we may have set, or not yet. What somebody else has set
        is left, and noted, so that this task does not touch it again.
        """
        held = await self._held(LIMIT, key)
        if held is not None and not held.ours:
            return False
        if held is None and value is None:
            return True
        settings = await self._engine.settings()
        in_force = _layer_in_force(settings, key)
        layer = in_force if held is None else held.layer
        now = settings.layer(layer).get(key)
        if known is None:
            known = () if held is None else (held.before, *held.ours.split(","))
        if now not in known or layer != in_force:
            await self._leave(held, layer, key, now)
            return False
        if value is None:
            assert held is not None, "just looked at"
            target = held.before
        else:
            target = value
        if now != target:
            await self._hold_limit(held, layer, key, now, value)
            self._journal.lease.check()
            await self._put(layer, key, target)
        return True

    async def _hold_limit(
        self, held: SettingChange | None, layer: str, key: str, now: str | None, value: str | None
    ) -> None:
        """Writes down what may be found there if a crash comes next."""
        if value is None:
            return
        if held is None:
            await self._add(LIMIT, layer, key, before=now, ours=value)
        else:
            last = held.ours.split(",")[-1]
            await self._journal.change_ours(held.id, ",".join(dict.fromkeys((last, value))))

    async def _leave(self, held: SettingChange | None, layer: str, key: str, now: str | None) -> None:
        if held is None:
            await self._add(LIMIT, layer, key, before=now, ours="")
            return
        if now in held.ours.split(","):
            # They have set the layer above ours. Before the row says so: a crash in between is like none.
            self._journal.lease.check()
            await self._put(layer, key, held.before)
        await self._journal.change_ours(held.id, "")

    async def exclude_from_voting(self, node: str) -> bool:
        """Excludes the node from voting; False where the engine has no such thing."""
        if await self._held(VOTING, "", node) is None:
            await self._add(VOTING, "", "", before=None, ours=node)
        self._journal.lease.check()
        return await self._engine.exclude_from_voting(node)

    async def restore(self, *, key: str | None = None, kind: str | None = None) -> tuple[str, ...]:
        """Undoes open changes, newest first: all of them, or those to one key, or of one kind.

        Returns a line for each that somebody else had changed in between.
        """
        notes: list[str] = []
        voting_cleared = False
        for change in await self._open():
            if (key is not None and change.key != key) or (kind is not None and change.kind != kind):
                continue
            self._journal.lease.check()
            # All exclusions from voting end with one request: the second of a batch would ask for nothing.
            note = "" if change.kind == VOTING and voting_cleared else await self._undo(change)
            voting_cleared |= change.kind == VOTING
            await self._journal.change_restored(change.id, note)
            if note:
                notes.append(note)
        return tuple(notes)

    async def restore_others(self) -> None:
        """Undoes what tasks before this one have left behind."""
        for change in await self._open():
            if change.task_id != self._task_id:
                self._journal.lease.check()
                await self._journal.change_restored(change.id, await self._undo(change))

    # spare nodes

    async def spares(self) -> tuple[SettingChange, ...]:
        """The spares there are, or may be in part: `key` is the name, `ours` the node as JSON."""
        return tuple(change for change in await self._journal.open_changes() if change.kind == SPARE)

    async def add_spare(self, name: str, node: str) -> None:
        await self._add(SPARE, "", name, before=None, ours=node)

    async def spare_gone(self, name: str) -> None:
        for change in await self.spares():
            if change.key == name:
                await self._journal.change_restored(change.id, "")

    async def addresses(self) -> frozenset[str]:
        """Addresses of the nodes of all clusters, and of the spares of this one."""
        spares = {spare_from(change.ours).address for change in await self.spares()}
        return await self._journal.addresses() | spares

    async def _open(self) -> tuple[SettingChange, ...]:
        """Nodes that are out of their balancer are in the same ledger, and put back by `balancing.Traffic`."""
        return tuple(change for change in await self._journal.open_changes() if change.kind in _KINDS)

    async def _undo(self, change: SettingChange) -> str:
        if change.kind == VOTING:
            await self._engine.clear_voting_exclusions()
            return ""
        settings = await self._engine.settings()
        now = settings.layer(change.layer).get(change.key)
        if change.kind == TOKEN:
            items = _items(settings, change.layer, change.key)
            if change.ours not in items:
                return ""
            left = [item for item in items if item != change.ours]
            # An empty list that stood there before us stays an empty list; otherwise the key goes.
            nothing = "" if change.before == "" else None
            await self._put(change.layer, change.key, ",".join(left) or nothing)
            return ""
        return await self._undo_value(change, now)

    async def _undo_value(self, change: SettingChange, now: str | None) -> str:
        if change.kind == LIMIT and not change.ours:
            return f"{change.key} was changed by somebody else and is left at {now!r}"
        if now == change.before:
            return ""
        if now not in (change.ours.split(",") if change.kind == LIMIT else (change.ours,)):
            return f"{change.key} was changed from {change.ours!r} to {now!r} by somebody else and is left so"
        await self._put(change.layer, change.key, change.before)
        return ""

    async def _put(self, layer: str, key: str, value: str | None) -> None:
        try:
            await self._engine.put_setting(layer, key, value)
        except EngineError as error:
            settings = await self._engine.settings() if error.status == _BAD_REQUEST else ClusterSettings()
            if settings.archived:
                raise ArchivedSettingsError(settings) from error
            raise

    async def _held(self, kind: str, key: str, ours: str | None = None) -> SettingChange | None:
        for change in await self._journal.open_changes():
            if change.kind == kind and change.key == key and ours in {None, change.ours}:
                return change
        return None

    async def _add(self, kind: str, layer: str, key: str, *, before: str | None, ours: str) -> None:
        await self._journal.add_change(self._task_id, kind, layer=layer, key=key, before=before, ours=ours)


def _layer_in_force(settings: ClusterSettings, key: str) -> str:
    # Transient wins over persistent, so a change elsewhere than in the winning layer would do nothing.
    return "transient" if key in settings.transient else "persistent"


def _items(settings: ClusterSettings, layer: str, key: str) -> list[str]:
    return [item for item in settings.layer(layer).get(key, "").split(",") if item]
