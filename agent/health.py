"""What is wrong with the machine now, per part, in the words the user reads."""

from agent.events import Event, Trouble


class Health:
    """Collects problems from events. SSH can be used while `problems` is empty."""

    def __init__(self) -> None:
        self.problems: dict[str, str] = {}

    def hear(self, event: Event) -> None:
        """Note what an event says about the machine's health."""
        if isinstance(event, Trouble):
            self.problems[event.part] = event.problem
