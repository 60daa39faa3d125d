"""What `swarm status` says of a machine's last hours."""

import pytest

from deploy.swarm import status
from deploy.swarm.records import Event, ListedMachine

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
