"""The work of an init: starts processes, waits for all of them, ends all of them."""
