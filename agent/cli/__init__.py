"""The command line of `swarm-agent`."""
