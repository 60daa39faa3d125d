"""`make attack`: runs every known attack on the agent, and reports which ones it withstands.

Each attack is a test with the marker `attack`, against its own machine: strangers, neighbours and
programs of the login account, with real clients. Arguments go to pytest (`-k lockout`).
"""

import sys

import pytest

GOOD, BAD = "withstood", "NOT WITHSTOOD"


class Report:
    """Print a line for each attack as soon as it is over."""

    def __init__(self) -> None:
        self.failed: list[str] = []
        self.count = 0

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.skipped:
            self._show("not tried", report)
        elif report.failed:
            self.failed.append(report.longreprtext)
            self._show(BAD, report)
        elif report.when == "call":
            self._show(GOOD, report)

    def _show(self, verdict: str, report: pytest.TestReport) -> None:
        self.count += 1
        name = report.nodeid.rpartition("::test_")[2].replace("_", " ")
        print(f"{verdict:14} {name} ({report.duration:.0f} s)", flush=True)


def main() -> int:
    """Run all attacks; returns 1 if one succeeded."""
    report = Report()
    # Without pytest's own reports, for which our settings have an option.
    quiet = ["-p", "no:terminal", "-o", "addopts=--strict-markers", "-m", "attack"]
    quiet += ["--numprocesses", "auto", "--dist", "loadgroup"]
    quiet += ["tests/system", "tests/unit", "tests/e2e"]
    status = pytest.main([*quiet, *sys.argv[1:]], plugins=[report])
    print(f"\n{report.count - len(report.failed)} of {report.count} withstood")
    for reason in report.failed:
        print(f"\n{reason}")
    return 0 if status == 0 and report.count else 1


if __name__ == "__main__":
    sys.exit(main())
