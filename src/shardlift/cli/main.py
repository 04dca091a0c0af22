"""The root command, and the one place where errors become words and exit codes.

Exit codes: 0 done, 1 the task failed, 2 usage, 3 refused by checks, 4 not found, 5 busy, 130 ended by Ctrl-C.
"""

from __future__ import annotations

import sys
import tempfile
import traceback
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from shardlift import __version__
from shardlift.cli import (
    agencies,
    audit,
    clusters,
    demo,
    emulate,
    faults,
    hooks,
    images,
    keys,
    moves,
    projects,
    routes,
    serve,
    tasks,
    upgrades,
)
from shardlift.cli.output import print_error, print_unexpected, say
from shardlift.cli.session import Session
from shardlift.errors import ShardliftError, UsageError
from shardlift.logs import configure_logs
from shardlift.settings import default_home, load_settings

_INTERRUPTED = 130

app = typer.Typer(name="shardlift", no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
app.add_typer(projects.app, name="project")
app.add_typer(keys.app, name="key")
app.add_typer(keys.master, name="masterkey")
app.add_typer(agencies.app, name="agency")
app.add_typer(audit.app, name="audit")
app.add_typer(images.app, name="image")
clusters.app.command("hook")(hooks.hook)
app.add_typer(clusters.app, name="cluster")
app.add_typer(tasks.app, name="task")
app.add_typer(routes.app, name="route")
app.add_typer(faults.app, name="fault")
app.command("serve")(serve.serve)
app.command("demo")(demo.demo)
app.command("emulate")(emulate.emulate)
app.command("credentials")(projects.credentials)
app.command("check")(upgrades.check)
app.command("upgrade")(upgrades.upgrade)
app.command("migrate")(moves.migrate)
app.command("replace")(moves.replace)
app.command("restart")(moves.restart)


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"shardlift {__version__}")
        raise typer.Exit


@app.callback()
def root(
    _: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Say the version.")] = False,
) -> None:
    """Upgrades Elasticsearch and OpenSearch clusters node by node, and answers the CSS upgrade API.

    Everything lives under SHARDLIFT_HOME. Exit codes: 0 done, 1 the task failed, 2 usage, 3 refused by checks,
    4 not found, 5 busy.
    """


def run(arguments: Sequence[str], session: Session | None = None) -> int:
    """Runs one command and returns its exit code. Nothing is raised."""
    as_json = "--json" in arguments
    try:
        code = app(args=list(arguments), prog_name="shardlift", standalone_mode=False, obj=session or Session())
    except ShardliftError as error:
        print_error(error, as_json=as_json)
        return error.exit_code
    except typer.TyperException as error:
        told = UsageError(error.format_message(), remedy="add --help to see what the command takes")
        if error.format_message():  # without words it has shown its help
            print_error(told, as_json=as_json)
        return error.exit_code
    except (KeyboardInterrupt, typer.Abort):
        say("interrupted")
        return _INTERRUPTED
    except BrokenPipeError:
        sys.stdout = None  # the reader has gone; nothing is left to be flushed
        return 0
    except Exception as error:  # noqa: BLE001 - the last line of defence: a person never sees a traceback
        print_unexpected(error, _write_down(error), as_json=as_json)
        return 1
    return code if isinstance(code, int) else 0


def main() -> None:
    """Entry point of `shardlift`."""
    configure_logs()
    sys.exit(run(sys.argv[1:]))


def _write_down(error: BaseException) -> Path:
    """Appends the traceback to HOME/shardlift.log, or to a temporary file where that cannot be."""
    text = f"{datetime.now(UTC).isoformat(timespec='seconds')}\n{''.join(traceback.format_exception(error))}\n"
    for folder in (_home(), Path(tempfile.gettempdir())):
        log = folder / "shardlift.log"
        try:
            with log.open("a", encoding="utf-8") as sink:
                sink.write(text)
        except OSError:
            continue
        return log
    return Path("nowhere: no folder could be written to")


def _home() -> Path:
    try:
        return load_settings().home
    except ShardliftError:
        return default_home()
