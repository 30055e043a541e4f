"""Times the stages of a user's own configuration on their own machine, and names what limits it."""

from __future__ import annotations

from detseg.benchmark.timers import STAGES, benchmark

__all__ = ["STAGES", "benchmark"]
