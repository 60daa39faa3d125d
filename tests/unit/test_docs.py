"""The docs name only what there is: files, commands, settings."""

import re
from pathlib import Path

import click
import pytest

from agent.cli.main import cli as agent_cli
from agent.settings.load import NO_SETTINGS, specs, variable
from deploy.swarm.cli import cli as swarm_cli

ON_THE_LAPTOP = {"SWARM_FLYCTL"}
ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text())
    assert [link for link in links if not (page.parent / link).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_exist(page: Path) -> None:
    text = page.read_text()
    assert _unknown(r"(?:`|    )swarm ([a-z]+)", text, swarm_cli) == set()
    assert _unknown(r"(?:`|    )swarm-agent ([a-z]+)", text, agent_cli) == set()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_settings_exist(page: Path) -> None:
    known = {variable(name) for name in specs()} | NO_SETTINGS | ON_THE_LAPTOP
    assert set(re.findall(r"SWARM_[A-Z0-9_]+", page.read_text())) <= known


def _unknown(pattern: str, text: str, group: click.Group) -> set[str]:
    return set(re.findall(pattern, text)) - set(group.list_commands(click.Context(group)))
