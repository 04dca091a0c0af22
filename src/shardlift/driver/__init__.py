"""A node's host: `Driver` is what Shardlift asks of it, `LocalDriver` the one for this machine."""

from shardlift.driver.local import LocalDriver
from shardlift.driver.protocol import Driver

__all__ = ["Driver", "LocalDriver"]
