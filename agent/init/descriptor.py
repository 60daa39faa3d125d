"""File descriptors that stay open when the process re-executes in place."""


class Descriptor(int):
    """A descriptor in a record; -1 is none.

    The type keeps it open over execve(2): see `agent/life/reexec.py`.
    """


NONE = Descriptor(-1)
