"""Files without a name: in memory where the kernel has memfd_create(2), else unlinked at once.

Nobody else can open one by a path, and the kernel frees it with its last descriptor. A container
whose seccomp profile refuses memfd_create still lets people in.
"""

import os


def write(content: bytes, folder: str) -> int:
    """A file with this content, read from its beginning; its descriptor, ours to close.

    `folder` is where it lies for a moment where it cannot be in memory. Raises `OSError`.
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
