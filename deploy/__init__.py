"""The laptop side of SwarmContainer: machines to try the agent on."""
