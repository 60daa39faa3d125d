"""Messages to people outside the machine: what they say, when, and how they are sent."""
