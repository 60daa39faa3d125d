"""The lock files agree: each of them has what its users import, in one version."""

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def locked(name: str) -> dict[str, str]:
    """Package → version."""
    text = (ROOT / f"requirements{name}.lock").read_text()
    return dict(re.findall(r"^([a-z0-9_.-]+)==(\S+)", text, re.MULTILINE))


def test_every_lock_file_has_what_its_users_import() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    named = {re.split(r"[<>=]", each)[0] for each in project["dependencies"]}
    assert named <= locked("-laptop").keys()
    for small, large in (("", "-laptop"), ("-build", "-laptop"), ("-laptop", "-dev")):
        assert locked(small).items() <= locked(large).items(), (small, large)
