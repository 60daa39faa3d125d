"""Imports between modules point downwards, including those for type checking."""

import ast
from pathlib import Path

ROOT = Path(__file__).parents[2]

LEVELS = {
    name: level
    for level, names in enumerate(
        (
            "settings data",
            "init platform",
            "access egress",
            "state",
            "services idle",
            "observe cli",
        )
    )
    for name in names.split()
}
"""Packages from the ground up: each imports its own level's or lower ones only."""


def graph() -> dict[str, set[str]]:
    """Module → the modules of the agent that it imports, anywhere in its code."""
    paths = [path for path in (ROOT / "agent").rglob("*.py") if path.name != "__main__.py"]
    names = {".".join(path.relative_to(ROOT).with_suffix("").parts): path for path in paths}
    return {name: _imports(path, set(names)) for name, path in names.items()}


def _imports(path: Path, known: set[str]) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            whole = {f"{node.module}.{alias.name}" for alias in node.names} & known
            found |= whole or ({node.module} & known)
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names} & known
    return found


def test_no_modules_import_each_other() -> None:
    arrows = graph()

    def reaches(start: str) -> list[str]:
        """An import path from a module back to itself, if there is one."""
        ways = [[start]]
        seen = set()
        while ways:
            way = ways.pop()
            for other in arrows.get(way[-1], ()):
                if other == start:
                    return [*way, start]
                if other not in seen:
                    seen.add(other)
                    ways.append([*way, other])
        return []

    circles = {" → ".join(way) for module in arrows if (way := reaches(module))}
    assert not circles


def test_arrows_point_downwards() -> None:
    wrong = []
    for module, others in graph().items():
        level = LEVELS.get(module.split(".")[1])
        for other in others:
            above = LEVELS.get(other.split(".")[1])
            if level is not None and above is not None and above > level:
                wrong.append(f"{module} → {other}")
    assert not wrong


def test_only_the_life_imports_the_life_and_everybody_its_ending() -> None:
    for module, others in graph().items():
        if not module.startswith("agent.life"):
            inner = {other for other in others if other.startswith("agent.life.")}
            assert inner <= {"agent.life.ending", "agent.life.main"}, (module, inner)
