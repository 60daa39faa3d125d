"""`make run`: the agent on this computer, with a key made for the purpose."""

import os
import subprocess
from pathlib import Path

from deploy.machine import Machine

FOLDER = Path(__file__).resolve().parent.parent / ".run"
PORT = os.environ.get("PORT", "2222")


def main() -> int:
    """Boot a machine, say how to log in, and stay until it ends."""
    FOLDER.mkdir(exist_ok=True)
    key = FOLDER / "id_ed25519"
    if not key.exists():
        subprocess.run(
            ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "make-run", "-f", str(key)],
            check=True,
        )
    machine = Machine(FOLDER / "machine")
    kind = "PID 1 of its own namespaces" if machine.namespaces else "an ordinary process"
    print(
        f"swarm-agent runs as {kind}; Ctrl-C stops it. In another terminal:\n\n"
        f"  ssh -p {PORT} -i {_short(key)} -o UserKnownHostsFile={_short(FOLDER / 'known_hosts')} "
        f"{machine.user}@127.0.0.1\n",
        flush=True,
    )
    machine.start(
        {
            "SSH_AUTHORIZED_KEYS": key.with_suffix(".pub").read_text(),
            "SWARM_LISTEN": f"127.0.0.1:{PORT}",
            "TERM": os.environ.get("TERM", "dumb"),
        }
    )
    while True:
        try:
            return machine.wait()
        except KeyboardInterrupt:
            continue  # the terminal sent it to the agent too, which ends in order


def _short(path: Path) -> str:
    return os.path.relpath(path)


if __name__ == "__main__":
    raise SystemExit(main())
