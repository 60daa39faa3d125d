"""swarm-agent: the init, SSH gate and sleep control of a remote dev container."""

__version__ = "0.2.0"
