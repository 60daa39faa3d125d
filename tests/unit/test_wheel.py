"""A laptop needs only the wheel for `swarm up --image`."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

_LOOK = """
from deploy.swarm import template
assert template.checkout() is None, template.ROOT
shape = template.Shape("box", "ams", "shared-cpu-1x", 1, 3, 7, build=False)
print(template.text(shape))
"""


def test_fly_toml_ships_and_no_checkout_is_needed(tmp_path: Path) -> None:
    words = ["wheel", "-q", "--no-deps", "--no-build-isolation", "-w", str(tmp_path), str(ROOT)]
    subprocess.run([sys.executable, "-m", "pip", *words], check=True, capture_output=True)
    [wheel] = tmp_path.glob("*.whl")
    where = tmp_path / "installed"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(where)
    environ = os.environ | {"PYTHONPATH": str(where)}
    words = [sys.executable, "-c", _LOOK]
    done = subprocess.run(
        words, env=environ, cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert 'app = "box"' in done.stdout
    assert "[build]" not in done.stdout
    assert "# Sleep exits with status 0" in done.stdout  # its comments stay
