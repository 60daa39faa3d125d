"""`swarm-agent`: `run` and `hook` start directly, all other commands go through click.

A client waits while `run` starts; click and its imports would be read from a slow disk.
"""

import os
import signal
import sys


def main() -> None:
    """Run the command line and exit."""
    words = sys.argv[1:]
    if words == ["run"] or words[:2] == ["run", "--"]:
        # Signals that arrive while modules are still read from the disk are handled afterwards.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT})
        _leave_out_tls()
        from agent.life.main import run

        status = 1
        try:
            status = run(words[2:], os.environ)
        except BaseException:
            import traceback

            traceback.print_exc()
        # All work is done; do not wait for threads that hang on a failed disk.
        os._exit(status)
    if words[:1] == ["hook"] and len(words) > 1 and not words[1].startswith("-"):
        # Every tool call of a coding agent waits for this.
        from agent.crew.tell import main as tell

        tell(words[1:])
    from agent.cli.main import cli

    cli(prog_name="swarm-agent")


def _leave_out_tls() -> None:
    """Import asyncio as if Python had been built without OpenSSL, which asyncio supports.

    Only an https probe uses TLS, and imports it then; libssl is 1 MB to read before the banner.
    """
    sys.modules["ssl"] = None  # type: ignore[assignment]  # this is how an import is refused
    import asyncio  # noqa: F401

    del sys.modules["ssl"]


if __name__ == "__main__":
    main()
