"""Writes dashboard.json, for the Grafana that Fly.io hosts or any other: `make docs`.

Import it there (Dashboards → New → Import) and choose the Prometheus data source. Fly.io adds the
labels `app`, `region` and `instance`; elsewhere the variable `app` stays at `All`.
"""

import json
from dataclasses import dataclass
from pathlib import Path

TARGET = Path(__file__).with_name("dashboard.json")

_WIDTH, _HEIGHT = 8, 7
_IN_A_ROW = 24 // _WIDTH


@dataclass(frozen=True)
class Panel:
    """One panel: `queries` is legend → PromQL, in which $app stands for the chosen apps."""

    title: str
    unit: str
    queries: dict[str, str]
    kind: str = "timeseries"


def _of_app(metric: str) -> str:
    return f'{metric}{{app=~"$app"}}'


PANELS = (
    Panel("Healthy", "bool_yes_no", {"": _of_app("swarm_healthy")}, "stat"),
    Panel("Sleeps in", "s", {"": _of_app("swarm_sleep_in_seconds")}, "stat"),
    Panel("Sessions", "none", {"": _of_app("swarm_sessions")}, "stat"),
    Panel(
        "Awake, of each hour",
        "percentunit",
        {"awake": f"increase({_of_app('swarm_awake_seconds_total')}[1h]) / 3600"},
    ),
    Panel("Time since activity", "s", {"idle": _of_app("swarm_idle_seconds")}),
    Panel(
        "Signals: active this long ago",
        "s",
        {"{{signal}}": "time() - " + _of_app("swarm_signal_last_active_timestamp_seconds")},
    ),
    Panel("Open sessions", "none", {"sessions": _of_app("swarm_sessions")}),
    Panel(
        "Session traffic (ended sessions)",
        "Bps",
        {
            "in": f"rate({_of_app('swarm_session_received_bytes_total')}[5m])",
            "out": f"rate({_of_app('swarm_session_sent_bytes_total')}[5m])",
        },
    ),
    Panel(
        "Authentications",
        "cpm",
        {"{{result}}": f"60 * rate({_of_app('swarm_authentications_total')}[5m])"},
    ),
    Panel(
        "Refused at the gate",
        "cpm",
        {"{{reason}}": f"60 * rate({_of_app('swarm_connections_refused_total')}[5m]) > 0"},
    ),
    Panel(
        "Bans",
        "none",
        {
            "active": _of_app("swarm_bans"),
            "started in 5 min": f"increase({_of_app('swarm_bans_started_total')}[5m])",
        },
    ),
    Panel(
        "Waiting to log in",
        "none",
        {"connections": _of_app("swarm_unauthenticated_connections")},
    ),
    Panel(
        "Wakes and sleeps",
        "none",
        {
            "wake: {{reason}}": f"increase({_of_app('swarm_wakes_total')}[1h]) > 0",
            "sleep: {{reason}} ({{mode}})": f"increase({_of_app('swarm_sleeps_total')}[1h]) > 0",
        },
    ),
    Panel(
        "Volume",
        "bytes",
        {
            "size": _of_app("swarm_volume_size_bytes"),
            "free": _of_app("swarm_volume_free_bytes"),
        },
    ),
    Panel(
        "Memory",
        "bytes",
        {
            "size": _of_app("swarm_memory_size_bytes"),
            "available": _of_app("swarm_memory_available_bytes"),
            "agent": _of_app("swarm_agent_process_resident_memory_bytes"),
        },
    ),
    Panel(
        "CPU",
        "percentunit",
        {
            "machine": f"rate({_of_app('swarm_cpu_busy_seconds_total')}[5m]) "
            f"/ {_of_app('swarm_cpus')}",
            "agent, of a core": f"rate({_of_app('swarm_agent_process_cpu_seconds_total')}[5m])",
        },
    ),
    Panel("Event loop lag", "s", {"worst": _of_app("swarm_event_loop_lag_seconds")}),
    Panel("Budget used", "percentunit", {"month": _of_app("swarm_budget_used_ratio")}),
)


def dashboard() -> str:
    """The dashboard as JSON."""
    source = {"type": "prometheus", "uid": "${datasource}"}
    variables = [
        {"name": "datasource", "label": "Data source", "type": "datasource", "query": "prometheus"},
        {
            "name": "app",
            "label": "App",
            "type": "query",
            "datasource": source,
            "query": "label_values(swarm_build_info, app)",
            "refresh": 2,
            "includeAll": True,
            "allValue": ".*",
            "multi": True,
        },
    ]
    panels = [
        {
            "id": number + 1,
            "title": panel.title,
            "type": panel.kind,
            "datasource": source,
            "gridPos": {
                "x": number % _IN_A_ROW * _WIDTH,
                "y": number // _IN_A_ROW * _HEIGHT,
                "w": _WIDTH,
                "h": _HEIGHT,
            },
            "fieldConfig": {"defaults": {"unit": panel.unit, "min": 0}, "overrides": []},
            "targets": [
                {
                    "refId": chr(ord("A") + index),
                    "datasource": source,
                    "expr": query,
                    "legendFormat": f"{{{{app}}}} {legend}".strip(),
                }
                for index, (legend, query) in enumerate(panel.queries.items())
            ],
        }
        for number, panel in enumerate(PANELS)
    ]
    return json.dumps(
        {
            "title": "swarm-agent",
            "uid": "swarm-agent",
            "tags": ["swarm"],
            "timezone": "browser",
            "schemaVersion": 39,
            "refresh": "30s",
            "time": {"from": "now-24h", "to": "now"},
            "templating": {"list": variables},
            "panels": panels,
        },
        indent=1,
    )


if __name__ == "__main__":
    TARGET.write_text(dashboard() + "\n")
