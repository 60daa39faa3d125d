"""`make mutants [MODULES="agent/access/jail.py …"]`: finds code changes that no unit test notices.

mutmut changes each function in one place at a time (a comparison, a number, a call, …) and runs the
unit tests that import its module. A change for which no test fails has *survived*, and is shown.
Some survivors change nothing observable; for the rest, tests are missing.

Modules that no unit test imports are listed and left out: only the system tests cover them, and are
too slow for this. mutmut has its own environment, because its dependencies would change the agent's
imports. Everything is in `.mutants/`.
"""

import json
import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

VERSION = "3.8.1"
PACKAGES = ("access", "idle", "services", "settings")

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / ".mutants"
TREE = FOLDER / "tree"
VENV = FOLDER / "venv"
PYTHON = str(VENV / "bin" / "python")

_KILLED, _SURVIVED = (1, 3), (0,)
"""mutmut's exit codes; any other one (a timeout, a crash) also means a noticed mutant."""
_NOT_RUN = (None, 5, 33, 34)


def main() -> None:
    modules = sys.argv[1:] or [
        str(path.relative_to(ROOT))
        for package in PACKAGES
        for path in sorted((ROOT / "agent" / package).rglob("*.py"))
    ]
    tests = {module: tests_of(module) for module in modules}
    for module in (module for module, found in tests.items() if not found):
        print(f"{module}: no unit test imports it")
    tested = [module for module, found in tests.items() if found]
    if not tested:
        sys.exit("nothing to do")
    install()
    copy_tree()
    configure(tested, sorted({test for found in tests.values() for test in found}))
    subprocess.run([PYTHON, "-m", "mutmut", "run"], cwd=TREE, check=True)
    for module in tested:
        report(module)


def tests_of(module: str) -> list[str]:
    """The unit tests that import a module."""
    package, _, name = module.removesuffix(".py").replace("/", ".").rpartition(".")
    imports = re.compile(
        rf"^\s*(from {package}\.{name} import|from {package} import .*\b{name}\b)", re.MULTILINE
    )
    paths = sorted((ROOT / "tests" / "unit").glob("test_*.py"))
    return [str(path.relative_to(ROOT)) for path in paths if imports.search(path.read_text())]


def install() -> None:
    """mutmut beside the packages of the project's own environment."""
    if Path(PYTHON).exists():
        return
    subprocess.run([sys.executable, "-m", "venv", str(VENV)], check=True)
    own = subprocess.run(
        [PYTHON, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()
    Path(own, "project.pth").write_text(sysconfig.get_path("purelib") + "\n")
    pip = [PYTHON, "-m", "pip", "install", "-qq", "--disable-pip-version-check"]
    subprocess.run([*pip, f"mutmut=={VERSION}"], check=True)


def copy_tree() -> None:
    """A copy of all committed and uncommitted sources, so that the originals stay unchanged."""
    shutil.rmtree(TREE, ignore_errors=True)
    listing = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(listing, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in filter(None, names.split("\0")):
        target = TREE / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if (ROOT / name).exists():
            shutil.copy2(ROOT / name, target)


def configure(modules: list[str], tests: list[str]) -> None:
    folders = sorted(path.name for path in TREE.iterdir() if path.name != "mutants")
    lines = [
        "\n[tool.mutmut]",
        'source_paths = ["agent"]',
        f"only_mutate = {json.dumps(modules)}",
        f"also_copy = {json.dumps(folders)}",
        f"pytest_add_cli_args_test_selection = {json.dumps(tests)}",
        "",
    ]
    with (TREE / "pyproject.toml").open("a") as file:
        file.write("\n".join(lines))


def report(module: str) -> None:
    """Print a module's score, and the survivors as diffs."""
    page = json.loads((TREE / "mutants" / f"{module}.meta").read_text())
    codes: dict[str, int | None] = page["exit_code_by_key"]
    survived = [name for name, code in codes.items() if code in _SURVIVED]
    untested = [name for name, code in codes.items() if code in _NOT_RUN]
    noticed = len(codes) - len(survived) - len(untested)
    share = noticed / len(codes) if codes else 1.0
    print(f"\n{module}: {noticed} of {len(codes)} noticed ({share:.0%})")
    for name in untested:
        print(f"  no unit test runs {name.rpartition('.')[2]}")
    for name in survived:
        show = [PYTHON, "-m", "mutmut", "show", name]
        done = subprocess.run(show, cwd=TREE, capture_output=True, text=True, check=True)
        print("\n".join(line for line in done.stdout.splitlines() if line[:1] in "@+-"))


if __name__ == "__main__":
    main()
