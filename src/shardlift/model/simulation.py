"""What a simulated cluster is made with, and the faults that can be asked of it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

SPEED = 60.0
SPEED_MAX = 10_000.0


@dataclass(frozen=True, slots=True)
class Simulation:
    """`data_bytes`: of all primaries, spread evenly over `indices`. `replicas` None: one where there is a second node.

    `speed`: seconds of the cluster's own time that pass in one second, more than 0, at most `SPEED_MAX`.
    """

    data_bytes: int = 2**30
    indices: int = 5
    replicas: int | None = None
    speed: float = SPEED


class FaultKind(StrEnum):
    """What can go wrong on demand. docs/emulator.md has a line for each."""

    STEP = "step"
    CALL = "call"
    SLOW = "slow"
    NO_START = "no-start"
    DIES = "dies"
    HANGS = "hangs"
    DISK_FULL = "disk-full"


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault of one simulated cluster. Which fields count depends on `kind`; the others are None.

    `node` is a node's name, `order` a sub-step, `call` an operation of the CSS API, `status` what it answers instead,
    `factor` how many times slower. `times`: how often it still strikes, None until it is cleared. `lost`: the call is
    carried out first, and only its answer is lost.
    """

    id: str
    kind: FaultKind
    added_at: datetime
    node: str | None = None
    order: int | None = None
    call: str | None = None
    status: int | None = None
    factor: float | None = None
    times: int | None = None
    message: str | None = None
    lost: bool = False
