"""`swarm`: the laptop's command. It drives the user's own flyctl and ssh."""
