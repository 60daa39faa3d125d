"""Default places of the agent's files, known without reading the settings."""

RUN_DIR = "/run/swarm"
RUN_DIR_UNPRIVILEGED = "~/.local/state/swarm/run"
CONFIG = "/etc/swarm/agent.toml"

# In the run folder:
SOCKET = "agent.sock"
SSHD_CONFIG = "sshd_config"
HOST_KEY = "ssh_host_ed25519_key"
