"""Interprets hooks of the tools: a report from `swarm-agent hook` becomes one typed `Report`.

Pure. It follows what each tool was seen to send; docs/agents.md lists what no tool reports.
"""

import re
from dataclasses import dataclass, replace

import msgspec

from agent import safe
from agent.crew.states import Kind, Need, Report
from agent.crew.tell import OWN_WORD
from agent.untrusted import decode

LONGEST = 300
"""The most characters of a folder's path that are kept."""

TOOLS = ("claude", "codex", "gemini", "opencode")
RECORDED = ("codex", "gemini")
"""Tools whose record of a conversation shows how a turn ended. (Claude Code has a better file.)"""

_NAME = re.compile(r"[\w.@:+-]{1,80}", re.ASCII)
_WORD = re.compile(r"[a-z_]{1,40}", re.ASCII)
_SOCKET = re.compile(r"/[\w./@:+-]{1,100}", re.ASCII)
_PATH = re.compile(r"/[^\0]{1,498}")
_PANE = re.compile(r"%\d{1,6}", re.ASCII)


class ReportError(ValueError):
    """It is not a report of a known hook."""


class Sent(msgspec.Struct, frozen=True):
    """A datagram of `agent.crew.tell`; any process of the login account can send one."""

    tool: str
    event: str
    session: str
    pid: int
    folder: str = ""
    tool_name: str = ""
    call: str = ""
    sub: str = ""
    about: str = ""
    source: str = ""
    reason: str = ""
    error: str = ""
    status: str = ""
    detail: str = ""
    note: str = ""
    background: int = 0
    typed: bool = True
    pane: str = ""
    tmux: str = ""
    record: str = ""
    at: float = 0.0


@dataclass(frozen=True, slots=True)
class Teller:
    """Who reports. `pane` and `tmux` are a tmux pane and its server's socket, `record` the path of
    the tool's record of the conversation; each may be empty."""

    tool: str
    session: str
    pid: int
    folder: str
    pane: str
    tmux: str
    record: str


def read(data: bytes) -> tuple[Teller, Report | None]:
    """The sender and its report; None if it changes nothing. Raises `ReportError`."""
    try:
        sent = decode(data, Sent)
    except ValueError as error:
        # The decoder's message depends on the sender, and each different text is reported once.
        raise ReportError("not a report") from error
    if sent.tool not in _READERS:
        raise ReportError("an unknown tool")
    if not _NAME.fullmatch(sent.session) or not 0 < sent.pid < 1 << 31:
        raise ReportError("it names no session")
    tmux = sent.tmux.partition(",")[0]
    pane = sent.pane if _PANE.fullmatch(sent.pane) and _SOCKET.fullmatch(tmux) else ""
    folder = safe.line(sent.folder, LONGEST) if sent.folder.startswith("/") else ""
    record = sent.record if sent.tool in RECORDED and _PATH.fullmatch(sent.record) else ""
    teller = Teller(sent.tool, sent.session, sent.pid, folder, pane, tmux if pane else "", record)
    report = _READERS[sent.tool](sent)
    return teller, None if report is None else replace(report, at=sent.at)


_ALIKE = {
    "SessionStart": Kind.STARTED,
    "UserPromptSubmit": Kind.TURN,
    "PreToolUse": Kind.CALL,
    "PostToolUse": Kind.CALLED,
    "PostToolUseFailure": Kind.CALLED,
    "PermissionRequest": Kind.ASKED,
    "Stop": Kind.STOPPED,
    "StopFailure": Kind.FAILED,
    "Interrupt": Kind.INTERRUPTED,
    "SubagentStart": Kind.SUB_STARTED,
    "SubagentStop": Kind.SUB_STOPPED,
    "SessionEnd": Kind.ENDED,
}
"""Claude Code's events, which Codex uses too; Codex adds Interrupt."""

_QUESTIONS = ("AskUserQuestion", "request_user_input")
_REMINDERS = {
    "permission_prompt": Need.PERMISSION,
    "elicitation_dialog": Need.ANSWER,
    "idle_prompt": Need.PROMPT,
}


def _claude(sent: Sent) -> Report | None:
    if sent.event == "Notification":
        need = _REMINDERS.get(sent.about)
        return None if need is None else Report(Kind.REMINDED, need=need)
    return _alike(sent)


def _codex(sent: Sent) -> Report | None:
    if sent.event == "agent-turn-complete":
        # `notify` also reports Codex's own turns that generate titles, in sessions without hooks.
        return None
    if sent.event == "PreToolUse" and sent.tool_name in _QUESTIONS:
        return Report(Kind.ASKED, sent.sub, sent.call, Need.ANSWER)
    return _alike(sent)


def _alike(sent: Sent) -> Report | None:
    kind = _ALIKE.get(sent.event)
    if kind is None:
        return None
    need = Need.NOTHING
    if kind is Kind.ASKED:
        need = Need.ANSWER if sent.tool_name in _QUESTIONS else Need.PERMISSION
    error = sent.error if _WORD.fullmatch(sent.error) else "error"
    return Report(
        kind,
        sent.sub if _NAME.fullmatch(sent.sub) else "",
        sent.call,
        need,
        max(0, sent.background),
        sent.typed,
        error if kind is Kind.FAILED else "",
    )


_GEMINI = {
    "SessionStart": Kind.STARTED,
    "BeforeAgent": Kind.TURN,
    "BeforeTool": Kind.CALL,
    "AfterTool": Kind.CALLED,
    "AfterAgent": Kind.STOPPED,
    "SessionEnd": Kind.ENDED,
}


def _gemini(sent: Sent) -> Report | None:
    if sent.event == "Notification":
        need = Need.ANSWER if sent.detail == "ask_user" else Need.PERMISSION
        return Report(Kind.ASKED, need=need) if sent.about == "ToolPermission" else None
    kind = _GEMINI.get(sent.event)
    # Its calls have no ids: calls of the same tool are assumed not to overlap.
    return None if kind is None else Report(kind, call=sent.tool_name)


_OPENCODE = {
    "session.created": Report(Kind.STARTED),
    "permission.asked": Report(Kind.ASKED, need=Need.PERMISSION),
    "question.asked": Report(Kind.ASKED, need=Need.ANSWER),
    "permission.replied": Report(Kind.ANSWERED),
    "question.replied": Report(Kind.ANSWERED),
    "question.rejected": Report(Kind.ANSWERED),
    "tool.before": Report(Kind.CALL),
    "tool.after": Report(Kind.CALLED),
}


def _opencode(sent: Sent) -> Report | None:
    sub = sent.sub if _NAME.fullmatch(sent.sub) else ""
    if sent.event == "session.status":
        return Report(_STATUS_OF[bool(sub), sent.status == "idle"], sub)
    if sent.event == "session.error":
        kind = Kind.INTERRUPTED if sent.error == "MessageAbortedError" else Kind.FAILED
        return None if sub else Report(kind, error="error")
    report = _OPENCODE.get(sent.event)
    if report is None or (sub and report.kind is Kind.STARTED):
        return None
    return replace(report, sub=sub, call=sent.call)


_STATUS_OF = {
    (False, False): Kind.TURN,
    (False, True): Kind.STOPPED,
    (True, False): Kind.SUB_STARTED,
    (True, True): Kind.SUB_STOPPED,
}
"""(Is it a subagent? Is it idle?) → what happened."""


_OWN_WORDS = {
    "working": Report(Kind.TURN),
    "waiting": Report(Kind.ASKED, need=Need.ANSWER),
    "done": Report(Kind.ENDED),
}


def _own_word(sent: Sent) -> Report | None:
    report = _OWN_WORDS.get(sent.event)
    if report is None:
        raise ReportError("it says neither working, waiting nor done")
    return replace(report, note=safe.line(sent.note, 120))


_READERS = {
    "claude": _claude,
    "codex": _codex,
    "gemini": _gemini,
    "opencode": _opencode,
    OWN_WORD: _own_word,
}
