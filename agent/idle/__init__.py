"""Detects activity on the machine, and puts it to sleep when there is none."""
