"""`make shell`: a root shell in the machine of `make run`, or a command there."""

import os
import shutil
import sys

from deploy.machine import PROGRAM, machine_init
from deploy.run import FOLDER


def main() -> None:
    """Execute the shell in place of this process."""
    words = sys.argv[1:] or ["bash", "-l"]
    if os.geteuid() != 0:
        sys.exit("make shell: this machine runs as an ordinary user, without root: just log in")
    init = machine_init(FOLDER / "machine")
    if init is None:
        sys.exit("make shell: no machine is awake here: make run, or a login wakes it")
    environ = {
        "PATH": f"{PROGRAM}/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "HOME": "/root",
        "TERM": os.environ.get("TERM", "dumb"),
        "PS1": r"root@machine:\w# ",
    }
    enter = shutil.which("nsenter") or "/usr/bin/nsenter"
    inside = [enter, "-t", str(init), "-m", "-r", "-p", "-u", "-i", "--wd=/", "--", *words]
    os.execve(enter, inside, environ)


if __name__ == "__main__":
    main()
