"""Messages to people outside the machine: their text, when they are sent, and how."""
