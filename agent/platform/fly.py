"""Fly.io, as seen from inside a machine: what it says of itself, and its Machines API.

The API is HTTP on a Unix socket in the machine; it needs no token for the machine's own app, and
the host name in the address is not looked at (fly.io/docs/machines/api).
"""

from collections.abc import Mapping
from dataclasses import dataclass

SUSPEND_LIMIT = 2 << 30
"""Bytes of memory up to which a machine can be suspended; the docs give two figures."""


class ApiError(Exception):
    """The Machines API refused, or did not answer; the message says what it said."""


@dataclass(frozen=True, slots=True)
class FlyMachine:
    """This machine on Fly.io."""

    app: str
    machine: str
    api: str
    memory: int | None
    """Bytes, as bought."""

    @classmethod
    def here(cls, environ: Mapping[str, str], api: str) -> "FlyMachine | None":
        """The machine whose environment this is; None outside Fly.io."""
        app, machine = environ.get("FLY_APP_NAME"), environ.get("FLY_MACHINE_ID")
        megabytes = environ.get("FLY_VM_MEMORY_MB", "")
        memory = int(megabytes) << 20 if megabytes.isdecimal() else None
        return cls(app, machine, api, memory) if app and machine else None

    async def suspend(self, patience: float) -> None:
        """Ask for the machine to be frozen, and wait for the answer.

        It may come before the freeze or after the resume. Raises `ApiError`.
        """
        import aiohttp
        import msgspec

        url = f"http://localhost/v1/apps/{self.app}/machines/{self.machine}/suspend"
        connector = aiohttp.UnixConnector(self.api)
        limit = aiohttp.ClientTimeout(total=patience)
        try:
            async with (
                aiohttp.ClientSession(connector=connector, timeout=limit) as session,
                session.post(url) as answer,
            ):
                body = await answer.read()
        except TimeoutError:
            raise ApiError(f"{self.api} did not answer within {patience:g} s") from None
        except (aiohttp.ClientError, OSError) as error:
            raise ApiError(f"{self.api}: {error}") from error
        if answer.status >= 400:
            try:
                reason = msgspec.json.decode(body, type=dict[str, str]).get("error", "")
            except msgspec.DecodeError:
                reason = body[:200].decode("utf-8", "replace")
            raise ApiError(f"{self.api}: status {answer.status}: {reason}")

    def unfit_to_suspend(self) -> str | None:
        """Why this machine should rather be stopped than suspended; None where it qualifies."""
        if self.memory is None:
            return "its memory is not known"
        if self.memory > SUSPEND_LIMIT:
            return f"it has {self.memory >> 20} MB of memory, more than {SUSPEND_LIMIT >> 20}"
        with open("/proc/swaps", encoding="utf-8") as file:
            return "it has swap" if len(file.readlines()) > 1 else None
