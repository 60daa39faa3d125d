"""The remarks of `swarm status` about a machine's last hours."""

import pytest

from deploy.swarm import status
from deploy.swarm.records import Config, Event, ListedMachine, Service

_MINUTE = 60_000


def machine(*events: Event) -> ListedMachine:
    """A machine with these events, the oldest first."""
    return ListedMachine("d8", "stopped", "ams", events=list(reversed(events)))


@pytest.mark.parametrize(
    ("times", "minutes", "said"),
    [(4, 5, ["it was woken 4 times lately"]), (3, 5, []), (4, 10, [])],
)
def test_starts_for_nothing_are_counted(times: int, minutes: int, said: list[str]) -> None:
    events = []
    for number in range(times):
        began = number * 60 * _MINUTE + 1
        events.append(Event("start", "started", "flyd", began))
        events.append(Event("suspend", "suspended", "flyd", began + minutes * _MINUTE))
    found = status.notes(machine(*events))
    assert [each.partition(",")[0] for each in found] == said
    assert all("swarm sleep --stay" in each for each in found)


@pytest.mark.parametrize(
    ("state", "says"),
    [
        ("started", "awake"),
        ("stopped", "asleep (stopped)"),
        ("suspended", "asleep (suspended)"),
        ("created", "asleep (not started yet)"),
        ("suspending", "going to sleep"),
        ("starting", "waking up"),
        ("of_next_year", "of_next_year"),
    ],
)
def test_a_state_is_said_in_the_words_of_the_docs(state: str, says: str) -> None:
    assert ListedMachine("d8", state, "ams").says == says
    away = ListedMachine("d8", state, "ams", host_status="unreachable")
    assert away.says == f"{says}? (host unreachable)"
    parked = Config(services=[Service(autostart=False)])
    said = ListedMachine("d8", state, "ams", config=parked).says
    assert said == ("asleep (parked)" if says.startswith("asleep") else says)


AWAKE = """\
day         awake     about USD
2026-11-30  4 h 00 min  0.06

month    awake       about USD
2026-11  81 h 02 min  1.30
2026-10  2 s         0.00

shared-cpu-2x with 2048 MB, prices of 2026-06-07 (the cheapest regions); without volume,
addresses, and the root file system while stopped
"""
WITHOUT = "day  awake\n2026-11-30  4 s\n\nmonth  awake\n2026-11  4 s\n\nno costs: no price"


@pytest.mark.parametrize(
    ("usage", "cost"),
    [
        (AWAKE, "about USD 1.30 in 2026-11"),
        (WITHOUT, "awake for 4 s in 2026-11"),
        ("month  awake\n", ""),
        ("", ""),
    ],
)
def test_the_cost_is_that_of_the_latest_month(usage: str, cost: str) -> None:
    assert status.last_cost(usage) == cost
