"""The machine's host key: created once, kept on the volume, the same after every redeploy.

One Ed25519 key: every OpenSSH since 6.5 (2014) supports it, and the NIST curves and RSA only
widen the choice of an attacker. sshd gets a copy in the run folder, so that later faults of the
volume do not affect SSH.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass

from agent import places, safe
from agent.access.sshkey import PublicKey, public_half
from agent.bus import Bus
from agent.events import HostKey, HostKeyReplaced, Notice
from agent.init.children import Children, NotDone, clean_environment
from agent.platform import volume

NAME = places.HOST_KEY
KEYGEN = "/usr/bin/ssh-keygen"

PATIENCE = 30.0
"""Seconds that ssh-keygen may take on a cold disk."""

SAID = 300


class HostKeyError(Exception):
    """No host key exists and none can be created; the message says what to do."""


@dataclass(frozen=True, slots=True)
class _Kept:
    private: bytes
    public: PublicKey
    origin: str


async def prepare(volume_path: str, run_dir: str, children: Children, bus: Bus) -> PublicKey:
    """Put the host key at `run_dir`/`NAME`: restored from the volume, or created and kept there.

    If the volume is missing, full, read-only or not trusted, the key lasts for this run only, which
    is reported. Raises `HostKeyError`.
    """
    target = f"{run_dir}/{NAME}"

    def replaced(reason: str, kept_as: str) -> None:
        bus.publish(HostKeyReplaced(reason=reason, kept_as=kept_as))

    try:
        with volume.own_folder(volume_path, replaced) as folder:
            kept = await _restore_or_create(folder, target, children, replaced)
    except (OSError, volume.NotTrusted) as error:
        bus.publish(
            Notice(
                part="hostkey",
                notice=f"the host key lasts for this run only, and clients will be warned of a "
                f"changed key after the next start: {volume_path} cannot be used ({error})",
            )
        )
        kept = await _create(target, children, "ephemeral")
    _install(target, kept.private)
    bus.publish(
        HostKey(type=kept.public.type, fingerprint=kept.public.fingerprint, origin=kept.origin)
    )
    return kept.public


async def _restore_or_create(
    folder: volume.Folder,
    target: str,
    children: Children,
    replaced: Callable[[str, str], None],
) -> _Kept:
    try:
        private = folder.read(NAME)
        if private is not None:
            return _Kept(private, public_half(private), "restored")
    except (volume.NotTrusted, ValueError) as error:
        kept_as = folder.set_aside(NAME)
        replaced(f"{folder.path}/{NAME}: {error}", f"{folder.path}/{kept_as}")
    kept = await _create(target, children, "created")
    folder.write(NAME, kept.private)
    return kept


async def _create(target: str, children: Children, origin: str) -> _Kept:
    _remove(target)
    argv = [KEYGEN, "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", target]
    try:
        done = await children.run(argv, env=clean_environment(), patience=PATIENCE)
    except NotDone as error:
        raise HostKeyError(f"cannot create a host key: {error}") from error
    except OSError as error:
        raise HostKeyError(
            f"cannot run {KEYGEN} ({error.strerror}): install openssh-client"
        ) from error
    if done.status.code != 0:
        said = safe.last_line(done.output, SAID)
        raise HostKeyError(
            f"ssh-keygen could not create a host key at {target} ({done.status}): {said}"
        )
    with open(target, "rb") as file:
        private = file.read()
    return _Kept(private, public_half(private), origin)


def _install(target: str, private: bytes) -> None:
    _remove(target)
    descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with open(descriptor, "wb") as file:
        file.write(private)


def _remove(target: str) -> None:
    for path in (target, f"{target}.pub"):
        try:
            os.unlink(path)
        except FileNotFoundError:
            continue
