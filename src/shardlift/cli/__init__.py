"""The command line. `main` is its entry point; each command opens the service, asks it, and says what came of it."""

from shardlift.cli.main import main

__all__ = ["main"]
