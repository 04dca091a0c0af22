"""`shardlift serve` that kills itself, as `kill -9` would, at points named in a file: `python -m ... HOME POINTS`.

POINTS is a JSON list of [what, node, order]; each is struck once, and taken off the list before the blow.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path

from shardlift.executor import Event
from shardlift.logs import configure_logs
from shardlift.serve import run
from shardlift.settings import Settings


def main(home: Path, points: Path) -> int:
    def strike(event: Event) -> None:
        left = json.loads(points.read_text())
        point = [event.what, event.node, event.order]
        if point in left:
            left.remove(point)
            points.write_text(json.dumps(left))
            os.kill(os.getpid(), signal.SIGKILL)

    configure_logs()
    return run(Settings(home=home, port=0), observer=strike)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2])))
