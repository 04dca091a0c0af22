"""Runs the programs of tools/clients, made with other makers' SDKs, each against an emulator of its own.

Needs Go and Node.js. What they fetch goes to .cache, not into the tree.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from shardlift.testing import Emulator, emulator

ROOT = Path(__file__).resolve().parent.parent
_COMMANDS: dict[str, tuple[tuple[str, ...], ...]] = {
    # Its own dependencies are resolved anew, to the versions that it asks for: a list of them would name their hosts.
    "go": (("go", "mod", "tidy"), ("go", "run", ".")),
    "node": (("npm", "ci", "--silent", "--no-audit", "--no-fund"), ("node", "main.js")),
}
_TIMEOUT_S = 600
_FAILING_ORDER = 10


def run(name: str, commands: Sequence[Sequence[str]], css: Emulator) -> int:
    """Exit code of the first command that fails, else 0."""
    folder = ROOT / ".cache" / "clients" / name
    shutil.copytree(ROOT / "tools" / "clients" / name, folder, dirs_exist_ok=True)
    css.add_fault("step", node="1", order=_FAILING_ORDER)
    environment = os.environ | {
        "CSS_URL": css.url,
        "CSS_PROJECT_ID": css.project_id,
        "CSS_AK": css.ak,
        "CSS_SK": css.sk,
        "CSS_CLUSTER_ID": css.cluster_id,
    }
    for command in commands:
        code = subprocess.run(command, cwd=folder, env=environment, timeout=_TIMEOUT_S, check=False).returncode
        if code:
            return code
    return 0


def main(asked: Sequence[str]) -> int:
    unknown = [name for name in asked if name not in _COMMANDS]
    if unknown:
        print(f"no client {unknown[0]!r}; there are {', '.join(_COMMANDS)}")
        return 2
    failed = []
    for name in asked or _COMMANDS:
        tool = _COMMANDS[name][-1][0]
        print(f"== check-clients: {name}", flush=True)
        if shutil.which(tool) is None:
            print(f"{tool} is not on the PATH; install it, or name the clients to run: ARGS=node")
            return 2
        with emulator() as css:
            if run(name, _COMMANDS[name], css):
                failed.append(name)
    print(f"failed: {', '.join(failed)}" if failed else "all well")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
