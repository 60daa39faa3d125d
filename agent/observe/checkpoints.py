"""The control socket's requests and orders about checkpoints."""

import time
from collections.abc import Awaitable, Callable
from typing import TypeVar
from urllib.parse import unquote_to_bytes

import msgspec
from msgspec.structs import replace as with_changes

from agent.checkpoints import tags
from agent.checkpoints.away import is_pending
from agent.checkpoints.part import Checkpoints
from agent.checkpoints.policy import Cause
from agent.checkpoints.repository import Refused
from agent.checkpoints.store import Checkpoint
from agent.checkpoints.undo import Order
from agent.http.messages import Answer, BadRequest, Request
from agent.http.routes import Routes
from agent.observe.answers import answer, refusal
from agent.observe.checkpoint_reports import (
    ChangeReport,
    ChangesReport,
    CheckpointReport,
    CheckpointsReport,
    DeleteOrder,
    DiffOrder,
    JobReport,
    MakeOrder,
    RestoredReport,
    RestoreOrder,
)
from agent.untrusted import decode

T = TypeVar("T")

PATH = "/v1/checkpoints"
OPEN_TO_ACCOUNT = (PATH, f"{PATH}/diff", f"{PATH}/restore")
"""What the login account may order; only root deletes."""

LONGEST_WAIT = 8.0
"""Seconds that a request may wait until an order is done."""

CHANGES_SHOWN = 2000


class CheckpointRequests:
    """Answers requests about checkpoints."""

    def __init__(self, parts: Checkpoints) -> None:
        self._parts = parts

    def add_to(self, routes: Routes) -> None:
        """Route every request."""
        routes.add("GET", PATH, self._list)
        routes.add("GET", f"{PATH}/jobs/{{number}}", self._job)
        routes.add("POST", PATH, self._make)
        routes.add("POST", f"{PATH}/diff", self._diff)
        routes.add("POST", f"{PATH}/restore", self._restore)
        routes.add("POST", f"{PATH}/delete", self._delete)

    async def _list(self, request: Request) -> Answer:
        if "away" in request.query:
            return self._order(self._list_away)
        return answer(checkpoints_report(self._parts))

    async def _list_away(self) -> CheckpointsReport:
        there = await self._parts.away.listing()
        report = checkpoints_report(self._parts)
        return with_changes(report, checkpoints=[checkpoint_report(each) for each in there])

    async def _make(self, request: Request) -> Answer:
        order = _decoded(request.body, MakeOrder)

        async def make() -> CheckpointReport:
            return checkpoint_report(
                await self._parts.keeper.make(Cause.HAND, tags.clean(order.note))
            )

        return self._order(make)

    async def _diff(self, request: Request) -> Answer:
        order = _decoded(request.body, DiffOrder)
        path = unquote_to_bytes(order.path) if order.path else None

        async def compare() -> ChangesReport:
            first, second, changes, count = await self._parts.undo.changes(
                order.first, order.second or None, path, CHANGES_SHOWN
            )
            listed = [ChangeReport(each.path, each.modifier) for each in changes]
            return ChangesReport(checkpoint_report(first), checkpoint_report(second), listed, count)

        return self._order(compare)

    async def _restore(self, request: Request) -> Answer:
        asked = _decoded(request.body, RestoreOrder)
        paths = tuple(unquote_to_bytes(path) for path in asked.paths)
        to = unquote_to_bytes(asked.to) if asked.to else None
        order = Order(asked.checkpoint, paths, to, asked.away)

        async def restore() -> RestoredReport:
            done = await self._parts.undo.restore(order)
            return RestoredReport(
                checkpoint=checkpoint_report(done.checkpoint),
                before=None if done.before is None else checkpoint_report(done.before),
                placed=done.placed.placed,
                removed=done.placed.removed,
                failures=done.placed.failures,
                problems=done.placed.problems,
            )

        return self._order(restore)

    async def _delete(self, request: Request) -> Answer:
        order = _decoded(request.body, DeleteOrder)

        async def delete() -> list[str]:
            return await self._parts.keeper.delete(order.checkpoints)

        return self._order(delete)

    def _order(self, work: Callable[[], Awaitable[object]]) -> Answer:
        try:
            return answer(JobReport(self._parts.desk.order(work)))
        except Refused as error:
            return refusal(error, status=409)

    async def _job(self, request: Request) -> Answer:
        try:
            number = int(request.variables["number"])
            wait = min(LONGEST_WAIT, float(request.query.get("wait", "0")))
            job = await self._parts.desk.wait(number, wait)
        except ValueError:
            return refusal("expected numbers")
        except KeyError:
            return refusal("there is no such order; the agent may have been restarted", status=404)
        if not job.done.is_set():
            return answer(JobReport(number, running=self._parts.keeper.record.running))
        if job.problem:
            return refusal(job.problem, status=409)
        return answer(JobReport(number, done=True, result=msgspec.to_builtins(job.result)))


def checkpoints_report(parts: Checkpoints) -> CheckpointsReport:
    """All checkpoints, and the state of the parts that make and copy them."""
    keeper = parts.keeper
    record, ledger = keeper.record, keeper.repository.ledger
    return CheckpointsReport(
        on=keeper.settings.checkpoints,
        checkpoints=[checkpoint_report(each) for each in ledger.checkpoints],
        running=record.running,
        problem=record.absent or record.problem or ledger.damaged,
        size=keeper.repository.size,
        away=keeper.settings.checkpoint_repo,
        uploading=record.uploading,
        upload_pending=is_pending(keeper),
        upload_problem=record.upload_problem,
        at=time.time(),
    )


def checkpoint_report(checkpoint: Checkpoint) -> CheckpointReport:
    """One checkpoint."""
    return CheckpointReport(
        id=checkpoint.id[:8],
        at=checkpoint.at,
        cause=checkpoint.cause,
        note=checkpoint.note,
        files=checkpoint.files,
        bytes=checkpoint.bytes,
        new=checkpoint.new,
        changed=checkpoint.changed,
        added=checkpoint.added,
        seconds=checkpoint.seconds,
        unread=checkpoint.unread,
    )


def _decoded(content: bytes, kind: type[T]) -> T:
    try:
        return decode(content, kind)
    except ValueError as error:
        raise BadRequest(str(error)) from error
