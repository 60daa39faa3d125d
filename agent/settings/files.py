"""Folders into which people put files: which file names count."""

import os


def listed(folder: str, suffix: str) -> list[str]:
    """The paths of the files that end with `suffix`, sorted. Raises `OSError`.

    Hidden names are left out: editors' lock files (`.#x`), macOS's `._x`, Kubernetes's `..data`.
    """
    return sorted(
        f"{folder}/{name}"
        for name in os.listdir(folder)
        if name.endswith(suffix) and not name.startswith((".", "#"))
    )
