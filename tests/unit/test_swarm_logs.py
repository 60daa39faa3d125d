"""The machine's log as shown by `swarm logs`, and clients that woke the machine without a login."""

from deploy.swarm import logs

_AGENT = (
    '\x1b[2m2026-11-25T18:23:08Z\x1b[0m app[d8] ams [\x1b[34minfo\x1b[0m]{"timestamp": '
    '"2026-11-25T18:22:59.249Z", "level": "warning", "event": "gate.refused", '
    '"client": "192.0.2.7", "count": 3}'
)


def test_events_are_words_and_other_lines_stay() -> None:
    assert str(logs.parse(_AGENT)) == "18:22:59  warning  gate.refused  client=192.0.2.7 count=3"
    plain = logs.parse("2026-11-25T18:23:08Z app[d8] ams [info]Starting init")
    assert str(plain) == "18:23:08  Starting init"
    assert str(logs.parse("no form at all")) == "  no form at all"


def test_what_a_stranger_wrote_cannot_move_the_cursor() -> None:
    text = '2026-11-25T18:23:08Z app[d8] ams [info]{"event": "x", "user": "a\\u001b[2J"}'
    assert "\x1b" not in str(logs.parse(text))


def test_lines_of_one_service() -> None:
    lines = ['[info]{"event": "e", "service": "db"}', '[info]{"event": "f", "service": "web"}']
    lines = [f"2026-11-25T18:23:08Z app[d8] ams {line}" for line in lines]
    assert [line.event for line in logs.chosen(lines, "web")] == ["f"]
    assert len(list(logs.chosen(lines, ""))) == 2


def test_who_wakes_it_for_nothing_is_counted_once_a_wake_up() -> None:
    def event(name: str, **fields: str) -> str:
        said = ", ".join(f'"{key}": "{value}"' for key, value in {"event": name, **fields}.items())
        return f"2026-11-25T18:23:08Z app[d8] ams [info]{{{said}}}"

    scan = [event("c", client="192.0.2.7")] * 3 + [event("wake.reason", reason="scan")]
    login = [event("c", client="192.0.2.8"), event("wake.reason", reason="login")]
    assert logs.wakers([*scan, *login, *scan]) == [("192.0.2.7", 2)]
