"""The machine's host name, which prompts and programs show."""

import os
import re
import socket
from collections.abc import Mapping
from contextlib import suppress

VARIABLE = "FLY_APP_NAME"

_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", re.ASCII)


def take_name(environ: Mapping[str, str]) -> str:
    """Set the host name to the platform's name of this machine; returns the host name.

    Only on a platform that names the machine: a computer's own name is not ours to change.
    """
    name = environ.get(VARIABLE, "")
    if _LABEL.fullmatch(name) and os.geteuid() == 0 and name != socket.gethostname():
        with suppress(PermissionError):  # a container keeps the name that its runtime gave it
            socket.sethostname(name)
    return socket.gethostname()
