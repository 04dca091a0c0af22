"""What all commands share: settings, the service, and whether a server runs on this home."""

from __future__ import annotations

import asyncio
import getpass
import json
import os
import socket
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeVar

import typer

from shardlift.errors import NotFoundError, ShardliftError, UsageError
from shardlift.settings import Settings, load_settings

if TYPE_CHECKING:  # at run time they are imported where they are needed: `shardlift --help` must not wait for them
    from shardlift.service import Service
    from shardlift.service.requests import Credentials

T = TypeVar("T")
Opener = Callable[[Settings], "AbstractAsyncContextManager[Service]"]


def _open(settings: Settings) -> AbstractAsyncContextManager[Service]:
    from shardlift.service import open_service  # noqa: PLC0415 - see above

    return open_service(settings)


@dataclass(frozen=True, slots=True)
class Session:
    """One run of the command line. Tests bring an `opener` of their own."""

    opener: Opener = _open

    def settings(self, **overrides: object) -> Settings:
        return load_settings(**overrides)

    def run(self, work: Callable[[Service], Awaitable[T]]) -> T:
        """Opens the service on the home, does the work with it, and closes it again."""

        async def inside() -> T:
            async with self.opener(self.settings()) as service:
                return await _recorded(service, work)

        return asyncio.run(inside())


async def _recorded(service: Service, work: Callable[[Service], Awaitable[T]]) -> T:
    """Does the work, and writes down which change it was, if it was one."""
    from shardlift.service.audit import ACCEPTED, REFUSED, Act, acting  # noqa: PLC0415 - see above

    act = Act(door="command", actor=f"user:{_user()}", address=socket.gethostname())
    with acting(act):
        try:
            done = await work(service)
        except ShardliftError as error:
            if act.action:
                with suppress(ShardliftError):  # what went wrong first is what is told
                    await service.audit.record(act, REFUSED, error.code)
            raise
        if act.action:
            await service.audit.record(act, ACCEPTED)
        return done


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # an id without a name
        return str(os.getuid())


def session_of(context: typer.Context) -> Session:
    """The session that `run` put into the context."""
    found = context.obj
    assert isinstance(found, Session)
    return found


def server_url(settings: Settings) -> str | None:
    """Where the server of this home listens; None when none runs."""
    try:
        said = json.loads((settings.home / "serve.json").read_text("utf-8"))
        pid, url = int(said["pid"]), str(said["url"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return None
    except PermissionError:
        return url  # it lives, as another user
    return url


def stored_credentials(settings: Settings) -> Credentials | None:
    """The command line's profile, None when there is none yet. Raises UsageError when its file is not ours."""
    from shardlift.serve import read_credentials  # noqa: PLC0415 - slow to import, and not needed by most commands

    try:
        return read_credentials(settings.credentials_path)
    except FileNotFoundError:
        return None
    except PermissionError:
        raise UsageError(
            f"{settings.credentials_path} is not yours to read", remedy="run as its owner, or set SHARDLIFT_HOME"
        ) from None
    except (OSError, ValueError, KeyError, TypeError):
        raise UsageError(
            f"{settings.credentials_path} has no usable [default] section",
            remedy="move it away and make a new project with `shardlift project create NAME`",
        ) from None


async def keep_first(service: Service, made: Credentials) -> Credentials:
    """A home's first credentials become its profile. Returns them with the server's URL."""
    from shardlift.serve import write_credentials  # noqa: PLC0415 - as above

    url = server_url(service.settings) or f"http://{service.settings.host}:{service.settings.port}"
    complete = replace(made, url=url)
    if not service.settings.credentials_path.exists():
        await asyncio.to_thread(write_credentials, service.settings.credentials_path, complete)
    return complete


async def keep_rotated(service: Service, made: Credentials) -> tuple[Credentials, bool]:
    """New secrets of the profile's own key become the profile. (complete credentials, whether they did)."""
    from shardlift.serve import write_credentials  # noqa: PLC0415 - as above

    profile = stored_credentials(service.settings)
    if profile is None or profile.ak != made.ak:
        return await keep_first(service, made), False
    complete = replace(made, url=profile.url)
    await asyncio.to_thread(write_credentials, service.settings.credentials_path, complete)
    return complete, True


async def project_of(service: Service, named: str | None) -> str:
    """The id of the named project; else of the profile's; else of the only one; a new home gets one.

    Raises NotFoundError for an unknown name, and UsageError when there are several to choose from.
    """
    if named is not None:
        return await service.project_id(named)
    profile = stored_credentials(service.settings)
    if profile is not None:
        return profile.project_id
    projects = await service.projects()
    if not projects:
        made = await keep_first(service, await service.create_project("default"))
        return made.project_id
    if len(projects) > 1:
        raise UsageError(
            "there are several projects, and no profile that says which is meant",
            field="--project",
            value=None,
            remedy=f"give --project with one of: {', '.join(project.name for project in projects)}",
        )
    return projects[0].id


def no_credentials(settings: Settings) -> NotFoundError:
    return NotFoundError(
        f"{settings.home} has no credentials yet",
        remedy="start `shardlift serve` once, or make a project with `shardlift project create NAME`",
    )
