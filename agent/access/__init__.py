"""Who may come in: keys, host keys, sshd's configuration, the gate, sessions."""
