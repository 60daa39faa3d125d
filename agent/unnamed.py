"""Files without a name: in memory where the kernel has memfd_create(2), else unlinked at once.

Nobody else can open such a file by a path, and the kernel frees it with its last descriptor. The
second way lets people in even if a container's seccomp profile refuses memfd_create.
"""

import os


def write(content: bytes, folder: str) -> int:
    """Create a file with this content; returns its descriptor, at the beginning, to be closed.

    If it cannot be in memory, it exists in `folder` for a moment. Raises `OSError`.
    """
    descriptor = _make(folder)
    try:
        left = memoryview(content)
        while left:
            left = left[os.write(descriptor, left) :]
        os.lseek(descriptor, 0, os.SEEK_SET)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def _make(folder: str) -> int:
    try:
        return os.memfd_create("swarm-agent")
    except (AttributeError, OSError):
        path = f"{folder}/.unnamed-{os.urandom(8).hex()}"
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        os.unlink(path)
        return descriptor
