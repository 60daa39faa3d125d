"""Where the machine's processes may connect to."""
