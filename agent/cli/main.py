"""The commands of `swarm-agent`, and the modules that define them."""

from agent import __version__
from agent.cli.lazy import Program

cli = Program(
    "swarm-agent",
    __version__,
    "The init, SSH gate and sleep control of a remote dev container.",
    {
        "State of the machine": {
            "status": "agent.cli.status:status",
            "why": "agent.cli.why:why",
            "health": "agent.cli.status:health",
            "check": "agent.cli.check:check",
            "usage": "agent.cli.usage:usage",
        },
        "Coding agents": {
            "agents": "agent.cli.agents:agents",
            "agent": "agent.cli.agents:agent",
            "hook": "agent.cli.agents:hook",
            "notify": "agent.cli.notify:notify",
        },
        "Awake and asleep": {
            "awake": "agent.cli.leases:awake",
            "sleep": "agent.cli.leases:sleep",
        },
        "Access": {
            "sessions": "agent.cli.sessions:sessions",
            "kick": "agent.cli.sessions:kick",
            "history": "agent.cli.sessions:history",
            "keys": "agent.cli.access:keys",
            "bans": "agent.cli.access:bans",
            "ban": "agent.cli.access:ban",
            "unban": "agent.cli.access:unban",
            "egress": "agent.cli.access:egress",
        },
        "Undo": {
            "checkpoint": "agent.cli.checkpoints:checkpoint",
            "checkpoints": "agent.cli.checkpoints:checkpoints",
            "diff": "agent.cli.checkpoints:diff",
            "restore": "agent.cli.checkpoints:restore",
        },
        "Services": {
            "services": "agent.cli.services:services",
            "start": "agent.cli.services:start",
            "stop": "agent.cli.services:stop",
            "restart": "agent.cli.services:restart",
            "logs": "agent.cli.services:logs",
        },
        "The agent itself": {
            "reload": "agent.cli.reload:reload",
            "run": "agent.cli.run:run",
        },
    },
)
