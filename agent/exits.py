"""Exit statuses of commands that could not be started."""

NOT_FOUND, NOT_EXECUTABLE = 127, 126


def exit_status_of(error: OSError) -> int:
    """The exit status that shells use for a command that could not be started."""
    missing = isinstance(error, FileNotFoundError | NotADirectoryError)
    return NOT_FOUND if missing else NOT_EXECUTABLE
