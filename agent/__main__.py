"""`swarm-agent`: `run` goes straight to the boot, everything else through click.

Somebody waits while `run` starts; click and what it imports would be read from a slow disk.
"""

import os
import signal
import sys


def main() -> None:
    """Run the command line; ends the process."""
    words = sys.argv[1:]
    if words == ["run"] or words[:2] == ["run", "--"]:
        # What is sent while we are still reading ourselves from the disk is heard afterwards.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT})
        _leave_out_tls()
        from agent.life.main import run

        status = 1
        try:
            status = run(words[2:], os.environ)
        except BaseException:
            import traceback

            traceback.print_exc()
        # Nothing is left to be done, and no thread that waits for a dead disk is waited for.
        os._exit(status)
    if words[:1] == ["hook"] and len(words) > 1 and not words[1].startswith("-"):
        # Every tool call of a coding agent waits for this.
        from agent.crew.tell import main as tell

        tell(words[1:])
    from agent.cli.main import cli

    cli(prog_name="swarm-agent")


def _leave_out_tls() -> None:
    """Import asyncio as if Python had been built without OpenSSL, which asyncio supports.

    The agent speaks no TLS, and libssl and what belongs to it are 1 MB to read before the banner.
    """
    sys.modules["ssl"] = None  # type: ignore[assignment]  # this is how an import is refused
    import asyncio  # noqa: F401

    del sys.modules["ssl"]


if __name__ == "__main__":
    main()
