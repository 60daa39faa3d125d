"""The settings in force; some can change while the agent runs."""

from dataclasses import dataclass, fields, replace

from agent.settings.load import specs
from agent.settings.model import Settings


@dataclass(frozen=True, slots=True)
class Change:
    """Names of changed settings: applied now, or waiting for a restart."""

    applied: tuple[str, ...]
    waiting: tuple[str, ...]


class Current:
    """Holds the settings; read `value` at each use, never keep it."""

    def __init__(self, settings: Settings) -> None:
        self.value = settings

    def change_to(self, wanted: Settings) -> Change:
        """Apply the settings that may change while the agent runs; the rest wait for a restart."""
        live = {name for name, spec in specs().items() if spec.live}
        differ = [
            item.name
            for item in fields(Settings)
            if getattr(wanted, item.name) != getattr(self.value, item.name)
        ]
        applied = tuple(name for name in differ if name in live)
        self.value = replace(self.value, **{name: getattr(wanted, name) for name in applied})
        return Change(applied, tuple(name for name in differ if name not in live))
