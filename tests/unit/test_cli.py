"""Properties of both command lines: they start quickly and behave alike."""

import re
import subprocess
import sys
from collections.abc import Iterator

import click
import pytest
from click.testing import CliRunner

from agent.cli.lazy import Program
from agent.cli.main import cli
from agent.cli.setup import completion_script, man_page
from agent.cli.tables import table

HEAVY = {"asyncio", "structlog", "aiohttp", "ssl", "http.client", "rich", "agent.settings.model"}
"""What makes a command slow to start; `run` and `check` alone need some of it."""


def _commands(group: click.Group, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    ctx = click.Context(group)
    for name in group.list_commands(ctx):
        command = group.get_command(ctx, name)
        yield (*path, name)
        if isinstance(command, click.Group):
            yield from _commands(command, (*path, name))


@pytest.mark.parametrize("words", [(), *_commands(cli)], ids=" ".join)
def test_every_command_explains_itself_with_h(words: tuple[str, ...]) -> None:
    result = CliRunner().invoke(cli, [*words, "-h"])
    assert result.exit_code == 0
    assert result.output == CliRunner().invoke(cli, [*words, "--help"]).output
    assert max(map(len, result.output.splitlines())) <= 80
    assert not re.findall(r"^  .*[a-z]\.\.\.$", result.output, re.MULTILINE)  # cut off


@pytest.mark.parametrize("columns", [60, 80])
def test_an_error_fits_the_terminal_and_keeps_its_words(
    columns: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setenv("SWARM_RUN_DIR", "/nowhere")
    for words, status in ((["bans"], 1), (["ban", "192.0.2.1", "--for", "nonsense"], 2)):
        result = CliRunner().invoke(cli, words)
        assert result.exit_code == status
        lines = result.output.splitlines()
        assert max(map(len, lines)) <= columns
    monkeypatch.setenv("COLUMNS", "0")
    whole = CliRunner().invoke(cli, words).output
    assert " ".join(result.output.split()) == " ".join(whole.split())


def test_version_has_one_form() -> None:
    assert CliRunner().invoke(cli, ["--version"]).output == f"swarm-agent {cli.version}\n"


@pytest.mark.parametrize("set_to", ["", "1"])
def test_no_colour_where_the_user_wants_none(set_to: str, monkeypatch: pytest.MonkeyPatch) -> None:
    program = Program("program", "1", "For the test.", {})
    program.add_command(
        click.Command("red", callback=lambda: click.echo(click.style("failed", fg="red")))
    )
    monkeypatch.setenv("NO_COLOR", set_to)
    said = CliRunner().invoke(program, ["red"], color=True).output
    assert ("\x1b" in said) is (set_to == "")
    assert "failed" in said


def test_a_mistyped_command_is_recognised() -> None:
    result = CliRunner().invoke(cli, ["statsu"])
    assert result.exit_code == 2
    assert "there is no command 'statsu'. Did you mean status" in result.output


@pytest.mark.parametrize("name", sorted({words[0] for words in _commands(cli)} - {"check"}))
def test_help_of_a_command_reads_nothing_heavy(name: str) -> None:
    code = (
        "import sys; from agent.cli.main import cli\n"
        f"try: cli(['{name}', '-h'])\n"
        "except SystemExit: pass\n"
        "print(*sys.modules, file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert set(done.stderr.split()) & HEAVY == set()


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_is_one_command(
    shell: str, tmp_path: "pytest.TempPathFactory", monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("SHELL", f"/bin/{shell}")
    for name in ("XDG_DATA_HOME", "XDG_CONFIG_HOME", "ZDOTDIR"):
        monkeypatch.delenv(name, raising=False)
    result = CliRunner().invoke(cli, ["completion"])
    assert result.exit_code == 0
    written = [line.split()[1] for line in result.output.splitlines() if line.startswith("wrote ")]
    texts = []
    for path in written:
        with open(path) as file:
            texts.append(file.read())
    assert completion_script(cli, shell) in texts
    assert man_page(cli) in texts
    again = CliRunner().invoke(cli, ["completion"])
    assert again.output.count("wrote") <= result.output.count("wrote")


def test_bash_completes_commands() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "agent"],
        env={
            "_SWARM_AGENT_COMPLETE": "bash_complete",
            "COMP_WORDS": "swarm-agent st",
            "COMP_CWORD": "1",
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert {"plain,status", "plain,start", "plain,stop"} == set(done.stdout.split())


def test_the_man_page_is_one_that_man_accepts() -> None:
    done = subprocess.run(
        ["man", "--warnings", "-E", "UTF-8", "-l", "-"],
        input=man_page(cli),
        env={"PATH": "/usr/bin:/bin", "MANWIDTH": "80"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stderr == ""
    for words in _commands(cli):
        assert f"swarm-agent {' '.join(words)}" in done.stdout


HEAD = ("name", "type", "fingerprint", "source")
ROW = ("ann@laptop", "ssh-ed25519", "SHA256:" + "x" * 43, "SSH_AUTHORIZED_KEYS line 1")


def test_a_table_that_fits_is_left_alone() -> None:
    assert table(("a", "b"), [("1", "two")], 80) == "a  b\n1  two"


def test_a_table_may_have_a_column_without_a_name_and_no_rows() -> None:
    assert table(("a", ""), [], 80) == "a"


@pytest.mark.parametrize("width", [60, 80, 100, 120])
def test_a_table_fits_its_terminal_and_cuts_nothing(width: int) -> None:
    text = table(HEAD, [ROW, ROW], width)
    assert max(map(len, text.splitlines())) <= width
    for cell in ROW:
        assert all(word in text for word in cell.split())


def test_a_long_cell_is_wrapped_in_its_column() -> None:
    text = table(("signal", "because of"), [("cpu", "make runs and runs and runs and runs")], 30)
    assert text.splitlines() == [
        "signal  because of",
        "cpu     make runs and runs and",
        "        runs and runs",
    ]
