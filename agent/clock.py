"""The clock of every decision."""

import time


def clock() -> float:
    """Seconds that never step and count on while the machine sleeps (CLOCK_BOOTTIME)."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)
