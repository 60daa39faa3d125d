"""The small flyctl's client of the platform's API, with flyctl's error messages."""

import http.client
import os
import time
import urllib.parse
from collections.abc import Mapping
from typing import TypeVar

import msgspec

from deploy.local import access, store

T = TypeVar("T")
_REPEATED, _PAUSES = (502, 503), (0.1, 0.2, 0.4)
"""Statuses at which flyctl retries, and its pauses in seconds."""


class FlyError(Exception):
    """The message that flyctl prints after `Error:`."""


class RefusedError(FlyError):
    """The API refused; `status` is HTTP's."""

    def __init__(self, status: int, words: str) -> None:
        super().__init__(words)
        self.status = status


class _Refusal(msgspec.Struct, frozen=True):
    error: str = ""


class _Message(msgspec.Struct, frozen=True):
    message: str


class _Answer(msgspec.Struct, frozen=True):
    data: msgspec.Raw = msgspec.Raw(b"null")
    errors: list[_Message] = []


class Client:
    """Asks the API that the environment names; by default this computer's stand-in."""

    def __init__(self) -> None:
        environ = dict(os.environ)
        if "FLY_FLAPS_BASE_URL" not in environ:
            folder = store.folder()
            environ |= access.ensure(folder).environ(folder)
        self._rest = environ["FLY_FLAPS_BASE_URL"]
        self._graph = environ.get("FLY_API_BASE_URL", self._rest)
        self._uiex = environ.get("FLY_UIEX_BASE_URL", self._rest)
        self.token = environ.get("FLY_API_TOKEN") or environ.get("FLY_ACCESS_TOKEN") or ""

    def require_session(self) -> None:
        """Check for a token, as flyctl does before every request. Raises `FlyError`."""
        if not self.token:
            raise FlyError("no access token available. Please login with 'flyctl auth login'")

    def rest(
        self, shape: type[T], method: str, path: str, body: object = None, nonce: str = ""
    ) -> T:
        """Ask the Machines API. Raises `RefusedError`, `FlyError`."""
        answer = self._ask(self._rest, method, f"/v1{path}", body, nonce)
        return _read(answer or b"null", shape)

    def uiex(self, shape: type[T], method: str, path: str, body: object = None) -> T:
        """Ask api.fly.io's REST API. Raises `RefusedError`, `FlyError`."""
        return _read(self._ask(self._uiex, method, f"/api/v1{path}", body), shape)

    def stand_in(self, shape: type[T], path: str) -> T:
        """Ask what only the stand-in offers. Raises `RefusedError`, `FlyError`."""
        return _read(self._ask(self._rest, "GET", f"/stand-in{path}", None), shape)

    def graph(self, shape: type[T], query: str, **variables: object) -> T:
        """Ask by GraphQL. Raises `FlyError`."""
        body = {"query": query, "variables": variables}
        found = _read(self._ask(self._graph, "POST", "/graphql", body), _Answer)
        if found.errors:
            raise FlyError(found.errors[0].message)
        return _read(found.data, shape)

    def _ask(self, base: str, method: str, path: str, body: object, nonce: str = "") -> bytes:
        self.require_session()
        headers = {"Authorization": f"Bearer {self.token}", "Content-Type": "application/json"}
        if nonce:
            headers["fly-machine-lease-nonce"] = nonce
        sent = None if body is None else msgspec.json.encode(body)
        for pause in (*_PAUSES, None):
            status, content = _asked(base, method, path, sent, headers)
            if status not in _REPEATED or pause is None:
                break
            time.sleep(pause)
        if status > 299:
            raise RefusedError(status, _words(status, content))
        return content


def _asked(
    base: str, method: str, path: str, sent: bytes | None, headers: Mapping[str, str]
) -> tuple[int, bytes]:
    place = urllib.parse.urlsplit(base)
    connection = http.client.HTTPConnection(place.hostname or "", place.port, timeout=600)
    try:
        connection.request(method, path, sent, dict(headers))
        answer = connection.getresponse()
        return answer.status, answer.read()
    except (OSError, http.client.HTTPException) as error:
        # Go's name for a connection that ended without an answer.
        reason = "EOF" if isinstance(error, http.client.RemoteDisconnected) else error
        raise FlyError(f"{method} {base}{path}: {reason}") from error
    finally:
        connection.close()


def _words(status: int, content: bytes) -> str:
    try:
        return msgspec.json.decode(content, type=_Refusal).error
    except msgspec.DecodeError:
        return f"request returned non-2xx status: {status}: {content.decode(errors='replace')}"


def _read(content: bytes, shape: type[T]) -> T:
    try:
        return msgspec.json.decode(content, type=shape)
    except msgspec.DecodeError as error:
        raise FlyError(f"failed decoding response: {error}") from error
