"""Exit statuses of commands that could not be started."""

NOT_FOUND, NOT_EXECUTABLE = 127, 126


def exit_status_of(error: OSError) -> int:
    """The status of a command that could not be started, as shells have it."""
    missing = isinstance(error, FileNotFoundError | NotADirectoryError)
    return NOT_FOUND if missing else NOT_EXECUTABLE
