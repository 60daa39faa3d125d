"""swarm-agent: the init, the SSH gate and the watchman of a remote dev container."""

__version__ = "0.2.0"
