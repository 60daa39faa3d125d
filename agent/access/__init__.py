"""Access over SSH: keys, host keys, sshd's configuration, the gate, sessions."""
