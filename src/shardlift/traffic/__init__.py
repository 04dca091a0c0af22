"""Load balancers in front of a cluster, as far as a node must leave them and come back."""

from shardlift.traffic.opening import open_balancer
from shardlift.traffic.protocol import Balancer

__all__ = ["Balancer", "open_balancer"]
