"""The demo: a real cluster, loaded and upgraded under a client's load, with the proof that nothing was lost."""

from shardlift.demo.run import DemoOptions, run_demo

__all__ = ["DemoOptions", "run_demo"]
