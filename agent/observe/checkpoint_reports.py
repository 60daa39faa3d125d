"""The control socket's records about checkpoints: orders, their results, and the list.

They are the documented format of `--json`: fields are added, never renamed.
"""

import msgspec


class CheckpointReport(msgspec.Struct, frozen=True):
    """A checkpoint of the volume. None means unknown: the checkpoint was copied from elsewhere.

    `added`: bytes that it added to the repository; `unread`: unreadable files that it lacks.
    """

    id: str
    at: float
    cause: str
    note: str
    files: int | None
    bytes: int | None
    new: int | None
    changed: int | None
    added: int | None
    seconds: float | None
    unread: int


class CheckpointsReport(msgspec.Struct, frozen=True):
    """All checkpoints, the oldest first, and the state of making and copying them.

    `size`: bytes of all of them on the volume; `away`: the second repository.
    """

    on: bool
    checkpoints: list[CheckpointReport]
    running: str
    problem: str
    size: int
    away: str
    uploading: bool
    upload_pending: bool
    upload_problem: str
    at: float


class JobReport(msgspec.Struct, frozen=True):
    """An order that takes longer than a request: its number, and its result once it is done."""

    job: int
    done: bool = False
    running: str = ""
    result: object = None


class MakeOrder(msgspec.Struct, frozen=True):
    """The request for a checkpoint."""

    note: str = ""


class DiffOrder(msgspec.Struct, frozen=True):
    """The request to compare; without `second`, with the present. `path` is percent-encoded."""

    first: str
    second: str = ""
    path: str = ""


class RestoreOrder(msgspec.Struct, frozen=True):
    """The request to restore; without `to`, in place. Paths are absolute and percent-encoded."""

    checkpoint: str
    paths: list[str] = []
    to: str = ""
    away: bool = False


class DeleteOrder(msgspec.Struct, frozen=True):
    """The request to delete checkpoints."""

    checkpoints: list[str]


class ChangeReport(msgspec.Struct, frozen=True):
    """How a path differs: `+` new, `-` gone, `M` content, `U` mode, owner or time, `T` type."""

    path: str
    modifier: str


class ChangesReport(msgspec.Struct, frozen=True):
    """The changes in the second checkpoint; `count` counts all, `changes` lists only the first."""

    first: CheckpointReport
    second: CheckpointReport
    changes: list[ChangeReport]
    count: int


class RestoredReport(msgspec.Struct, frozen=True):
    """The result of a restore; restoring `before` undoes it."""

    checkpoint: CheckpointReport
    before: CheckpointReport | None
    placed: int
    removed: int
    failures: int
    problems: list[str]
