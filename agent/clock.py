"""The clock of every decision."""

import time


def clock() -> float:
    """Seconds of a clock that never steps and runs while the machine sleeps (CLOCK_BOOTTIME)."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)
