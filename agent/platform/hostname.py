"""The machine's name as its host name: what prompts and programs show."""

import os
import re
import socket
from collections.abc import Mapping
from contextlib import suppress

VARIABLE = "FLY_APP_NAME"

_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", re.ASCII)


def take_name(environ: Mapping[str, str]) -> str:
    """Make the platform's name of this machine its host name; what it is from now on.

    Only where the platform says that the machine is one: a computer's own name is not ours.
    """
    name = environ.get(VARIABLE, "")
    if _LABEL.fullmatch(name) and os.geteuid() == 0 and name != socket.gethostname():
        with suppress(PermissionError):  # a container has the name that its runtime gave it
            socket.sethostname(name)
    return socket.gethostname()
