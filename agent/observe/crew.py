"""The reports of the coding agents."""

import time

from agent.clock import clock
from agent.crew.keeper import Crew, place_of
from agent.crew.states import URGENT, Member
from agent.observe.reports import CodingAgentReport, SubagentReport


def agent_reports(crew: Crew, *, ended: bool) -> list[CodingAgentReport]:
    """Running agents, most urgent first; with `ended`, followed by the ended ones."""
    offset = time.time() - clock()
    return [_report(each, offset) for each in (*crew.members, *(crew.ended if ended else ()))]


def _report(member: Member, offset: float) -> CodingAgentReport:
    standing = member.standing
    return CodingAgentReport(
        name=member.name,
        tool=member.tool,
        state=standing.state.value,
        need=standing.need.value,
        because=standing.because,
        since=standing.since + offset,
        began=member.began + offset,
        folder=member.folder,
        place="" if member.ended else place_of(member),
        pane=member.pane,
        tmux=member.tmux,
        pid=member.process[0],
        prompts=member.prompts,
        tool_calls=member.tool_calls,
        works=member.works,
        urgent=standing.need in URGENT,
        note=member.note,
        subagents=[
            SubagentReport(name, part.state.value, part.need.value)
            for name, part in member.subs.items()
        ],
    )
