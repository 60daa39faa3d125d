"""The docs name only existing files, commands and settings."""

import re
from pathlib import Path

import click
import pytest

from agent.cli.main import cli as agent_cli
from agent.settings.load import NO_SETTINGS, specs, variable
from deploy.local import surface
from deploy.swarm.cli import cli as swarm_cli

ON_THE_LAPTOP = {"SWARM_FLYCTL"}
NOT_IMITATED = ("fly auth login", "fly ssh console")
"""Commands of flyctl that the small one does not have."""

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text())
    assert [link for link in links if not (page.parent / link).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_exist_with_their_options(page: Path) -> None:
    text = page.read_text()
    typed = re.findall(r"`((?:swarm|swarm-agent) [^`]+)`", text)
    # In a block, a command's description follows it after two spaces.
    typed += re.findall(r"^    \$? ?((?:swarm|swarm-agent) (?:[^\s]+ ?)*)", text, re.MULTILINE)
    assert [f"{each}: {why}" for each in typed if (why := _unknown(each))] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_settings_exist(page: Path) -> None:
    known = {variable(name) for name in specs()} | NO_SETTINGS | ON_THE_LAPTOP
    assert set(re.findall(r"SWARM_[A-Z0-9_]+", page.read_text())) <= known


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_of_flyctl_exist_with_their_options(page: Path) -> None:
    typed = re.findall(r"`(fly [^`|>…]+)", page.read_text())
    wrong = []
    for line in typed:
        if not line.startswith(NOT_IMITATED):
            try:
                surface.parse(line.split()[1:])
            except surface.UsageError as error:
                wrong.append(f"{line}: {error}")
    assert wrong == []


def test_what_holds_a_promise_of_security_exists() -> None:
    """By file (`test_gate.py` of the system tests, `unit/…`), by name, or by command."""
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in (ROOT / "docs" / "security.md").read_text().splitlines()
        if line.startswith("| ")
    ]
    assert rows[0][-1] == "held by"
    tests, makefile = ROOT / "tests", (ROOT / "Makefile").read_text()
    missing = []
    for *_, held_by in rows[1:]:
        for name in held_by.split(", "):
            places = [tests / "system" / name, tests / name, ROOT / name]
            made = name.startswith("`make ") and f"\n{name[6:-1]}:" in makefile
            if not (made or any(place.exists() for place in places)):
                missing.append(name)
    assert missing == []


def _unknown(typed: str) -> str:
    """The unknown command or option in such a line; words after an ellipsis are ignored."""
    program, *words = typed.replace(",", " ").partition("…")[0].split()
    command: click.Command = swarm_cli if program == "swarm" else agent_cli
    while words and isinstance(command, click.Group) and re.fullmatch("[a-z-]+", words[0]):
        name = words.pop(0)
        if name.startswith("-"):
            break
        found = command.get_command(click.Context(command), name)
        if found is None:
            return f"no command {name}"
        command = found
    options = {option for each in command.params for option in (*each.opts, *each.secondary_opts)}
    wanted = {re.sub("[=|].*", "", word).rstrip(".:;)") for word in words[: _own(words)]}
    missing = {word for word in wanted if word.startswith("--")} - options - {"--help", "--version"}
    return f"no option {', '.join(sorted(missing))}" if missing else ""


def _own(words: list[str]) -> int:
    """How many words belong to the command: words after `--` do not."""
    return words.index("--") if "--" in words else len(words)
