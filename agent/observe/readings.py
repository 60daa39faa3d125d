"""Metrics that are read from the machine at each scrape.

Label values come from enums and lists in the code, or are names of services, never addresses, users
or keys; so their number is bounded.
"""

import asyncio
import dataclasses
import os
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from agent.access.admission import Refusal
from agent.checkpoints.away import is_pending
from agent.checkpoints.keeper import Keeper
from agent.clock import clock
from agent.crew.states import State
from agent.idle.policy import sleeps_at
from agent.machine import Machine
from agent.observe.host import cpu_busy, memory_space, volume_space
from agent.observe.idle import SIGNALS
from agent.services.supervisor import READY

Value = float | Mapping[str, float]


@dataclass(frozen=True, slots=True)
class _Read:
    """A metric that is read from the machine; with `label`, one number per label value."""

    name: str
    text: str
    read: Callable[[Machine], Value]
    label: str | None = None
    counter: bool = False

    def family(self, machine: Machine | None) -> Metric:
        """The metric, with its values now; without a machine, only its description."""
        kind = CounterMetricFamily if self.counter else GaugeMetricFamily
        labels = [] if self.label is None else [self.label]
        family = kind(f"swarm_{self.name}", self.text, labels=labels)
        value = {} if machine is None else self.read(machine)
        if isinstance(value, Mapping):
            for key, number in value.items():
                family.add_metric([key], number)
        else:
            family.add_metric([], value)
        return family


def _until_sleep(machine: Machine) -> float:
    now = clock()
    at = sleeps_at(machine.idle.watch.decision(), now)
    return float("inf") if at is None else at - now


def _last_active(machine: Machine) -> dict[str, float]:
    offset = time.time() - clock()
    views = machine.idle.watch.views
    latest = {name: views[name].latest for name in SIGNALS if name in views}
    return {name: seen.at + offset for name, seen in latest.items() if seen is not None}


def _failed_signals(machine: Machine) -> dict[str, float]:
    views = machine.idle.watch.views
    return {name: float(name in views and views[name].problem is not None) for name in SIGNALS}


def _keeper(machine: Machine) -> Keeper:
    return machine.checkpoints.keeper


def _agents(machine: Machine) -> dict[str, float]:
    found = dict.fromkeys((state.value for state in State if state is not State.ENDED), 0.0)
    for member in machine.crew.members:
        found[member.standing.state.value] += 1
    return found


_READ = (
    _Read(
        "healthy", "1 when SSH can be reached and a usable key exists.", lambda m: not m.problems()
    ),
    _Read("problems", "Problems of the machine now.", lambda m: len(m.problems())),
    _Read(
        "notices",
        "Parts that are or were degraded; SSH does not depend on them.",
        lambda m: len(m.notices()),
    ),
    _Read(
        "reexecutions",
        "Re-executions since the machine started.",
        lambda m: {"failure": m.past.failures, "reload": m.past.reloads},
        "reason",
        counter=True,
    ),
    _Read(
        "keys",
        "Lines of authorised keys.",
        lambda m: {"usable": len(m.keyring.admitting()), "refused": len(m.keyring.keys.bad)},
        "state",
    ),
    _Read(
        "egress_refused_destinations",
        "Destinations that the egress rules refused in the last ten minutes.",
        lambda m: 0 if m.wall is None else len(m.wall.refused),
    ),
    _Read("sessions", "Logged-in SSH sessions.", lambda m: len(m.sessions)),
    _Read(
        "unauthenticated_connections",
        "Connections that have not logged in yet.",
        lambda m: m.gate.unauthenticated,
    ),
    _Read(
        "connections_refused",
        "Connections that the gate closed before any sshd was started for them.",
        lambda m: {each.name.lower(): m.gate.refusals.total[each] for each in Refusal},
        "reason",
        counter=True,
    ),
    _Read("strikes", "Strikes against clients.", lambda m: m.gate.jail.strikes_given, counter=True),
    _Read("bans", "Networks that are banned now.", lambda m: m.gate.jail.count(clock())),
    _Read(
        "idle_seconds",
        "Seconds since the last activity.",
        lambda m: clock() - m.idle.watch.seen.latest.at,
    ),
    _Read("sleep_in_seconds", "Seconds until the machine sleeps; +Inf for never.", _until_sleep),
    _Read(
        "signal_last_active_timestamp_seconds",
        "When a signal of activity was last active (Unix time); absent if it never was.",
        _last_active,
        "signal",
    ),
    _Read(
        "signal_failed", "1 while a signal of activity cannot be read.", _failed_signals, "signal"
    ),
    _Read("leases", "Leases that hold the machine awake.", lambda m: len(m.idle.leases.active())),
    _Read("agents", "Coding agents that have not ended, by state.", _agents, "state"),
    _Read(
        "agents_seconds",
        "Time that coding agents worked, and waited for a person, since the machine started.",
        lambda m: dataclasses.asdict(m.crew.counted()),
        "state",
        counter=True,
    ),
    _Read(
        "budget_used_ratio",
        "Share of the monthly hour budget used; 0 without a budget.",
        lambda m: m.idle.budget.used,
    ),
    _Read(
        "service_up",
        "1 while a service runs and is ready, or a oneshot service has succeeded.",
        lambda m: {name: each.record.state in READY for name, each in m.supervisor.runners.items()},
        "service",
    ),
    _Read(
        "service_restarts",
        "Restarts of a service.",
        lambda m: {name: each.restarts for name, each in m.supervisor.runners.items()},
        "service",
        counter=True,
    ),
    _Read(
        "service_start_time_seconds",
        "When a service's process was started (Unix time).",
        lambda m: {
            name: each.record.started_at
            for name, each in m.supervisor.runners.items()
            if each.record.started_at is not None
        },
        "service",
    ),
    _Read("orphans_reaped", "Orphans reaped.", lambda m: m.children.orphans_reaped, counter=True),
    _Read(
        "event_loop_lag_seconds",
        "The longest delay of the event loop in the last minute.",
        lambda m: m.lag.worst,
    ),
    _Read(
        "tasks",
        "Tasks of the event loop: it grows only with work in progress.",
        lambda _: len(asyncio.all_tasks()),
    ),
    _Read(
        "log_dropped_lines",
        "Log lines that were lost because nobody read them in time.",
        lambda m: m.log.lost,
        counter=True,
    ),
    _Read(
        "volume_size_bytes",
        "Size of the volume; 0 without one.",
        lambda m: volume_space(m.current.value.volume).size,
    ),
    _Read(
        "volume_free_bytes",
        "Bytes that the login user can still write to the volume.",
        lambda m: volume_space(m.current.value.volume).free,
    ),
    _Read(
        "checkpoints",
        "Checkpoints of the volume.",
        lambda m: len(_keeper(m).repository.ledger.checkpoints),
    ),
    _Read(
        "checkpoint_timestamp_seconds",
        "When the latest checkpoint was made (Unix time); 0 without one.",
        lambda m: next((each.at for each in reversed(_keeper(m).repository.ledger.checkpoints)), 0),
    ),
    _Read(
        "checkpoint_duration_seconds",
        "How long the latest checkpoint took; 0 if unknown.",
        lambda m: next(
            (each.seconds or 0 for each in reversed(_keeper(m).repository.ledger.checkpoints)), 0
        ),
    ),
    _Read(
        "checkpoints_size_bytes",
        "Size of all checkpoints on the volume.",
        lambda m: _keeper(m).repository.size,
    ),
    _Read(
        "checkpoints_failed",
        "Checkpoints that could not be made.",
        lambda m: _keeper(m).record.failures,
        counter=True,
    ),
    _Read(
        "checkpoint_overdue",
        "1 while something works and no checkpoint has succeeded for a day.",
        lambda m: _keeper(m).is_overdue,
    ),
    _Read(
        "checkpoint_upload_pending",
        "1 while a checkpoint has not been copied to the repository away from the machine yet.",
        lambda m: is_pending(_keeper(m)),
    ),
    _Read("memory_size_bytes", "Memory of the machine.", lambda _: memory_space().size),
    _Read(
        "memory_available_bytes",
        "Memory that programs can still get.",
        lambda _: memory_space().free,
    ),
    _Read(
        "cpu_busy_seconds",
        "CPU time of all cores together since the kernel booted.",
        lambda _: cpu_busy(),
        counter=True,
    ),
    _Read("cpus", "Cores of the machine.", lambda _: os.cpu_count() or 1),
)


class Live:
    """A collector (of prometheus_client) that reads the machine at each scrape."""

    def __init__(self, machine: Machine | None) -> None:
        self._machine = machine

    def collect(self) -> Iterable[Metric]:
        """Every metric of the table above."""
        return [entry.family(self._machine) for entry in _READ]


LABELS = {f"swarm_{entry.name}": entry.label for entry in _READ}
"""The label of each metric that is read, or None."""
