"""The configuration reference in docs/, generated from the settings themselves."""

from agent.settings.load import specs, variable

HEAD = """\
# Configuration reference

Generated from `agent/settings/model.py` by `make docs`; a test holds it to the code.

Each setting is an environment variable, or a key of the TOML file that `SWARM_CONFIG` names
(`/etc/swarm/agent.toml` if it exists). The environment overrides the file, the file overrides the
default. Durations have a unit (`90s`, `30m`, `1h30m`). If a setting is unknown or cannot be parsed,
the agent exits at once with status 78; all such problems are reported together.

| variable | TOML key | default | meaning |
|---|---|---|---|
"""


def markdown() -> str:
    """The whole page."""
    rows = []
    for name, spec in specs().items():
        default = f"`{spec.default}`" if spec.default else "empty"
        if spec.default_unprivileged != spec.default:
            default += f"; without root `{spec.default_unprivileged}`"
        if spec.default_on_fly != spec.default:
            default += f"; on Fly.io `{spec.default_on_fly}`"
        rows.append(f"| `{variable(name)}` | `{name}` | {default} | {spec.doc} |\n")
    return HEAD + "".join(rows)


if __name__ == "__main__":
    print(markdown(), end="")  # noqa: T201
