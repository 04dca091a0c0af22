"""Seeded trials: a whole control plane on a simulated cluster, under faults, watched after every event."""
