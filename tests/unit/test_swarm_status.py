"""What `swarm status` says of a machine's last hours."""

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
