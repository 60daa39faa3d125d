"""How the machine reports its state: control socket, HTTP, metrics."""
