"""The references of metrics and events in docs/, generated from the code: `make docs`."""

import sys

from agent import events
from agent.events import Event
from agent.observe.metrics import Metrics
from agent.observe.readings import LABELS

METRICS_HEAD = """\
# Metrics

Generated from `metrics.py` and `readings.py` in `agent/observe/` by `make docs`; a test checks it.

Served at `/metrics` on port 9091 (`SWARM_HTTP_LISTEN`), as text or, when asked for, OpenMetrics.
Counters count since the start of the agent unless they say otherwise. All label values come from
the code or from names of services. `deploy/grafana/` has a dashboard and alert rules for them.

| name | type | labels | meaning |
|---|---|---|---|
"""

EVENTS_HEAD = """\
# Events

Generated from `agent/events.py` by `make docs`; a test holds it to the code.

Each is one line of the log: JSON, or for people on a terminal (`SWARM_LOG_FORMAT`). Every line has
`timestamp` (RFC 3339, UTC), `level` and `event`. Events marked with * come in floods during an
attack; at most 60 of each a minute are written, and `log.summed` counts the rest.

| event | level | fields | meaning |
|---|---|---|---|
"""

_SUFFIX = {"counter": "_total", "info": "_info"}


def metrics() -> str:
    """docs/metrics.md."""
    rows = []
    for family in Metrics(None).registry.collect():
        labels = {label for sample in family.samples for label in sample.labels} - {"le"}
        label = LABELS.get(family.name)
        shown = ", ".join(f"`{name}`" for name in sorted(labels | ({label} if label else set())))
        name = family.name + _SUFFIX.get(family.type, "")
        rows.append(f"| `{name}` | {family.type} | {shown} | {family.documentation} |\n")
    return METRICS_HEAD + "".join(sorted(rows))


def metric_names() -> set[str]:
    """The names of all series, as used in queries."""
    names = set()
    for family in Metrics(None).registry.collect():
        name = family.name + _SUFFIX.get(family.type, "")
        names |= (
            {f"{name}_bucket", f"{name}_sum", f"{name}_count"}
            if family.type == "histogram"
            else {name}
        )
    return names


def vocabulary() -> list[type[Event]]:
    """Every event, in the order of its definition."""
    return [
        kind
        for kind in vars(events).values()
        if isinstance(kind, type) and issubclass(kind, Event) and kind is not Event
    ]


def event_page() -> str:
    """docs/events.md."""
    rows = []
    for kind in vocabulary():
        names = ", ".join(f"`{name}`" for name in kind.fields)
        words = " ".join((kind.__doc__ or "").split())
        flood = " *" if kind.summed else ""
        rows.append(f"| `{kind.name}`{flood} | {kind.level} | {names} | {words} |\n")
    return EVENTS_HEAD + "".join(sorted(rows))


if __name__ == "__main__":
    print({"metrics": metrics, "events": event_page}[sys.argv[1]](), end="")  # noqa: T201
