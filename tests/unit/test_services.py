"""Definitions, order, backoff and output of services, without an agent."""

import asyncio
import os
import signal
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.init.descriptor import Descriptor
from agent.platform.account import Account
from agent.services import graph
from agent.services.backoff import Again, Backoff, GiveUp, Over
from agent.services.definition import (
    Check,
    DefinitionError,
    Duration,
    Health,
    OnFailure,
    Restart,
    Service,
    Url,
    parse,
)
from agent.services.load import Plan, load
from agent.services.output import BURST, LINE_LIMIT, Output, Stream


def me() -> str:
    import pwd

    return pwd.getpwuid(os.geteuid()).pw_name


def service(name: str = "web", /, **keys: object) -> Service:
    return parse(name, {"command": "true"} | keys, me())


def test_a_whole_definition() -> None:
    found = service(
        command="sh -c 'echo a b'",
        env={"A": "1"},
        secrets=["TOKEN"],
        restart="always",
        backoff="2s",
        max_restarts=3,
        after=["db"],
        requires=["cache"],
        ready={"tcp": 6379},
        ready_timeout="5s",
        health={"http": "http://127.0.0.1:1/x", "interval": "1s", "failures": 2},
        stop_signal="int",
        stop_timeout="3s",
        on_failure="shutdown",
        nofile=1024,
        nice=5,
        oom_score_adj=100,
    )
    assert found.command == ("sh", "-c", "echo a b")
    assert found.restart is Restart.ALWAYS
    assert found.ready == Check(tcp=6379)
    assert found.health == Health(
        http=Url("http://127.0.0.1:1/x"), interval=Duration(1.0), failures=2
    )
    assert found.stop_signal == int(signal.SIGINT)
    assert found.follows == {"db", "cache"}
    assert found.on_failure is OnFailure.SHUTDOWN


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"command": ""}, "command = '': expected"),
        ({"command": "no-such-program"}, "no-such-program is not found"),
        ({"command": ["true", 1]}, "command = ['true', 1]: expected a command line"),
        ({"command": "sh -c 'x"}, 'command = "sh -c \'x": expected'),
        ({"comand": "true"}, "comand is not a key of a service (did you mean command?)"),
        ({"user": "nobody-here"}, "expected an account that exists"),
        (
            {"restart": "sometimes"},
            'restart = \'sometimes\': expected "always" or "on-failure" or "never"',
        ),
        ({"backoff": "soon"}, "expected a duration"),
        ({"ready": {"tcp": 0}}, "ready.tcp = 0: expected a whole number from 1 to 65535"),
        ({"ready": 80}, "ready = 80: expected a table"),
        ({"ready": {"file": "/x", "redirects": True}}, "expected redirects for http only"),
        ({"health": {"tcp": 1, "failures": 0}}, "health.failures = 0: expected a whole number"),
        ({"health": {"tcp": 1, "failurs": 2}}, "did you mean failures?"),
        ({"name": "other"}, "name is not a key"),
        ({"ready": {"tcp": 1, "file": "/x"}}, "expected one of"),
        ({"ready": {"http": "https://x"}}, "an address that begins with http://"),
        ({"health": {"notify": True}}, "notify is only for ready"),
        ({"health": {"tcp": 1, "often": 1}}, "often is not a key"),
        ({"stop_signal": "SIGNOTHING"}, "expected the name of a signal"),
        ({"nice": 40}, "expected a whole number from -20 to 19"),
        ({"env": {"A": 1}}, "expected variables with text values (A is not valid)"),
        ({"secrets": ["a b"]}, "'a b' is not valid"),
        ({"after": ["Bad Name"]}, "'Bad Name' is not valid"),
        ({"on_failure": "panic"}, 'expected "nothing" or "shutdown"'),
        ({"oneshot": "yes"}, "expected true or false"),
    ],
)
def test_what_is_wrong_is_named_with_its_key(keys: dict[str, object], words: str) -> None:
    with pytest.raises(DefinitionError) as told:
        service(**keys)
    assert words in str(told.value)


KEYS = Service.__struct_fields__
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)


@given(st.dictionaries(st.sampled_from(KEYS) | st.text(), VALUES, max_size=3))
def test_no_table_breaks_the_parser(table: dict[str, object]) -> None:
    """Existing keys with random values."""
    try:
        parse("x", {"command": "true"} | table, me())
    except DefinitionError as error:
        assert str(error)


def test_backoff_doubles_up_to_its_limit_and_gives_up() -> None:
    backoff = Backoff(service(backoff="1s", backoff_max="4s", max_restarts=4))
    ends = [backoff.ended(failed=True, ran=0) for _ in range(5)]
    assert ends == [Again(1, 1), Again(2, 2), Again(4, 3), Again(4, 4), GiveUp(4)]


def test_the_longest_pause_holds_after_however_many_restarts() -> None:
    backoff = Backoff(service(backoff="1s", backoff_max="1h", max_restarts=3000))
    ends = [backoff.ended(failed=True, ran=0) for _ in range(3000)]
    assert ends[11] == Again(2048, 12)
    assert ends[12:] == [Again(3600, number) for number in range(13, 3001)]
    assert backoff.ended(failed=True, ran=0) == GiveUp(3000)
    assert backoff.restarts == 3000


def test_a_oneshot_that_failed_is_tried_again() -> None:
    assert Backoff(service(oneshot=True)).ended(failed=True, ran=0) == Again(1, 1)


def test_a_stable_run_forgets_the_restarts() -> None:
    backoff = Backoff(service(backoff="1s", stable="10s"))
    assert backoff.ended(failed=True, ran=9.9) == Again(1, 1)
    assert backoff.ended(failed=True, ran=9.9) == Again(2, 2)
    assert backoff.ended(failed=True, ran=10) == Again(1, 1)


@pytest.mark.parametrize(
    ("restart", "failed", "again"),
    [
        ("always", False, True),
        ("always", True, True),
        ("on-failure", False, False),
        ("on-failure", True, True),
        ("never", True, False),
    ],
)
def test_when_a_service_is_started_again(restart: str, failed: bool, again: bool) -> None:
    end = Backoff(service(restart=restart)).ended(failed=failed, ran=0)
    assert isinstance(end, Again) is again
    assert again or end == Over(failed)


def test_a_oneshot_that_worked_is_over_whatever_restart_says() -> None:
    assert Backoff(service(oneshot=True, restart="always")).ended(failed=False, ran=0) == Over(
        False
    )


def test_circles_unknown_names_and_dependents_are_found() -> None:
    services = {
        "a": service("a", after=["b"]),
        "b": service("b", requires=["c"]),
        "c": service("c"),
        "d": service("d", requires=["b"]),
    }
    assert graph.cycle(services) == []
    assert graph.dependents(services, "c") == {"b", "d"}
    assert graph.unknown(services | {"e": service("e", after=["nobody"])}) == {"e": "nobody"}
    services["c"] = service("c", after=["a"])
    assert graph.cycle(services) in (list("abca"), list("bcab"), list("cabc"))


def test_followers_stop_before_what_they_follow() -> None:
    services = {
        "web": service("web", after=["api"]),
        "api": service("api", requires=["db"]),
        "db": service("db"),
    }
    assert graph.stop_order(services, services) == ["web", "api", "db"]
    assert graph.stop_order(services, ["db", "web"]) in (["db", "web"], ["web", "db"])


ACCOUNT = Account(me(), os.geteuid(), os.getegid(), "/", "/bin/sh", locked=False)


def write(folder: Path, name: str, text: str) -> str:
    path = folder / name
    path.write_text(text)
    path.chmod(0o644)
    return str(path)


def test_a_bad_file_is_refused_whole_and_changes_nothing(tmp_path: Path) -> None:
    good = write(tmp_path, "a.toml", '[service.a]\ncommand = "true"\n')
    other = write(tmp_path, "b.toml", '[service.b]\ncommand = "true"\n')
    plan, refused = load([good, other], ACCOUNT, Plan())
    assert (set(plan.services), refused) == ({"a", "b"}, [])
    write(tmp_path, "b.toml", '[service.b]\ncommand = "false"\n[service.c]\ncomand = "x"\n')
    again, refused = load([good, other], ACCOUNT, plan)
    assert again.services == plan.services
    assert str(refused[0]).startswith(f"{other}: [service.c] comand is not a key")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[service.a", "Expected"),
        ('[service.a]\ncommand = "true"\nafter = ["b"]\n', "follows b, which does not exist"),
        ('[service.a]\ncommand = "true"\nafter = ["a"]\n', "a cycle: a after a"),
        ("[service]\na = 1\n", "[service.a] expected a table"),
    ],
)
def test_files_with_mistakes(tmp_path: Path, text: str, words: str) -> None:
    plan, refused = load([write(tmp_path, "x.toml", text)], ACCOUNT, Plan())
    assert plan.services == {}
    assert words in refused[0].reason


def test_a_file_that_others_can_write_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path, "x.toml", '[service.a]\ncommand = "true"\n')
    Path(path).chmod(0o666)
    assert "others can write this file" in load([path], ACCOUNT, Plan())[1][0].reason


@pytest.mark.root
def test_a_file_of_the_login_user_cannot_start_anything_as_root(tmp_path: Path) -> None:
    nobody = Account("nobody", 65534, 65534, "/", "/bin/sh", locked=False)
    path = write(tmp_path, "x.toml", '[service.a]\ncommand = "true"\nuser = "root"\n')
    os.chown(path, 65534, 65534)
    assert "can only have services that run as nobody" in load([path], nobody, Plan())[1][0].reason
    write(tmp_path, "x.toml", '[service.a]\ncommand = "true"\n')
    assert set(load([path], nobody, Plan())[0].services) == {"a"}


def test_the_same_name_in_two_files(tmp_path: Path) -> None:
    files = [
        write(tmp_path, name, '[service.a]\ncommand = "true"\n') for name in ("a.toml", "b.toml")
    ]
    plan, refused = load(files, ACCOUNT, Plan())
    assert set(plan.services) == {"a"}
    assert "[service.a] is in another file too" in refused[0].reason


def through(data: bytes) -> tuple[list[str], int]:
    """The lines of a service that writes `data` and exits, and how many bytes are dropped."""

    async def run() -> tuple[list[str], int]:
        reading, writing = os.pipe()
        lines: list[str] = []
        lost: list[int] = []
        output = Output(Stream(Descriptor(reading)), lines.append, lost.append)

        def write() -> None:
            with os.fdopen(writing, "wb") as pipe:
                pipe.write(data)

        await asyncio.to_thread(write)
        output.close()
        return lines, sum(lost)

    return asyncio.run(run())


def test_lines_are_told_apart_also_the_last_without_its_end() -> None:
    assert through(b"one\ntwo\r\n\nthree") == (["one", "two", "", "three"], 0)


def test_odd_bytes_are_made_visible() -> None:
    assert through(b"a\xffb\x00c\n") == (["a\\xffb\\x00c"], 0)


def test_output_cannot_act_on_a_terminal_and_its_colours_are_left_out() -> None:
    said = b"\x1b[1;31mred\x1b[0m \x1b]0;title\x07 \x9b2J\tok \xc3\xa9\r\n"
    assert through(said) == (["red \\x1b]0;title\\x07 \\x9b2J\tok é"], 0)


def test_a_long_line_is_cut_and_marked_and_the_next_is_whole() -> None:
    lines, lost = through(b"x" * (3 * LINE_LIMIT) + b"\nnext\n")
    assert lines[0] == "x" * LINE_LIMIT + " …(cut)"
    assert lines[1:] == ["next"]
    assert lost == 0


def test_a_flood_is_thrown_away_counted_and_never_blocks() -> None:
    data = b"0123456789abcde\n" * (4 * BURST // 16)
    lines, lost = through(data)
    assert lost > BURST
    assert sum(len(line) + 1 for line in lines) + lost >= len(data) - 64
    assert set(lines) <= {
        "0123456789abcde",
        *("0123456789abcde"[:n] + " …(cut)" for n in range(16)),
    }
