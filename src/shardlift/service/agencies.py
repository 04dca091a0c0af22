"""Agencies: named profiles of a project that say what may be done in their name.

A project without any takes every well-formed name, as a CSS client expects that has never made one here. With the first
one that is made the names count: a request must give one that exists and allows what is asked for.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from shardlift.clock import Clock
from shardlift.errors import NotFoundError, ShardliftError, UsageError
from shardlift.model import TaskKind
from shardlift.service.audit import note
from shardlift.store.keys import KeyStore

_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")


class Action(StrEnum):
    """What an agency can allow."""

    UPGRADE = "upgrade"
    AZ_MIGRATE = "az_migrate"
    REPLACE = "replace"
    RESTART = "restart"


@dataclass(frozen=True, slots=True)
class Agency:
    name: str
    actions: tuple[Action, ...]
    created_at: datetime


class AgencyNameError(UsageError):
    """The project has agencies, and none of that name."""


class AgencyDeniedError(ShardliftError):
    """The agency is there, but does not allow the action."""

    code = "not_permitted"
    exit_code = 3


class Agencies:
    """The agencies of all projects."""

    def __init__(self, store: KeyStore, clock: Clock) -> None:
        self._store = store
        self._clock = clock

    async def create(self, project_id: str, name: str, actions: tuple[str, ...]) -> Agency:
        """Raises UsageError for a name or an action that cannot be, and when there is one of that name."""
        if not _NAME.fullmatch(name):
            raise UsageError(
                "an agency's name has 1 to 64 letters, digits, - or _",
                field="name",
                value=name,
                remedy="choose another",
            )
        unknown = [action for action in actions if action not in set(Action)]
        if unknown or not actions:
            raise UsageError(
                f"there is no action {unknown[0]!r}" if unknown else "an agency allows at least one action",
                field="allow",
                value=unknown[0] if unknown else None,
                remedy=f"choose from {', '.join(Action)}",
            )
        note("agency.create", project_id=project_id, subject=name)
        allowed = tuple(action for action in Action if action in actions)
        made = Agency(name, allowed, self._clock.now())
        await self._store.add_agency(project_id, name, allowed, made.created_at)
        return made

    async def list(self, project_id: str) -> tuple[Agency, ...]:
        found = await self._store.agencies(project_id)
        return tuple(
            Agency(name, tuple(Action(action) for action in actions), at) for name, (actions, at) in found.items()
        )

    async def delete(self, project_id: str, name: str) -> None:
        """Raises NotFoundError without one. Tasks that run in its name go on; they can be aborted, and not retried."""
        note("agency.delete", project_id=project_id, subject=name)
        await self._store.remove_agency(project_id, name)

    async def permit(self, project_id: str, name: str, action: Action) -> None:
        """Raises AgencyNameError or AgencyDeniedError unless `action` may be done in the name of this agency.

        Any name, and none, is right while the project has no agency at all.
        """
        found = {agency.name: agency for agency in await self.list(project_id)}
        if not found:
            return
        agency = found.get(name)
        if agency is None:
            raise AgencyNameError(
                "there is no such agency in this project" if name else "an agency must be named in this project",
                field="agency",
                value=name,
                remedy=f"name one of: {', '.join(found)}",
            )
        if action not in agency.actions:
            raise AgencyDeniedError(
                f"agency {name} does not allow {action}",
                field="agency",
                value=name,
                remedy="name an agency that does, or have one made with `shardlift agency create`",
            )


def action_of(kind: TaskKind) -> Action:
    """The action that a task of this kind needs."""
    known = {
        "UPGRADING": Action.UPGRADE,
        "AZ_MIGRATION": Action.AZ_MIGRATE,
        "REPLACING": Action.REPLACE,
        "REBOOTING": Action.RESTART,
    }
    found = known.get(str(kind))
    if found is None:
        raise NotFoundError(f"no action of an agency stands for tasks of kind {kind}")
    return found
