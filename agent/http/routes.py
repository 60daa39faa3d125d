"""Chooses the handler for a method and path."""

from collections.abc import Awaitable, Callable
from dataclasses import replace
from urllib.parse import unquote

from agent.http.messages import Answer, BadRequest, Request

Handler = Callable[[Request], Awaitable[Answer]]


class Routes:
    """Paths with their handlers; `{name}` in a path matches one segment."""

    def __init__(self, refusal: Callable[[str, int], Answer]) -> None:
        self._refusal = refusal
        self._handlers: dict[tuple[str, ...], dict[str, Handler]] = {}

    def add(self, method: str, path: str, handler: Handler) -> None:
        """Let `handler` answer this method of this path; GET also answers HEAD."""
        methods = self._handlers.setdefault(tuple(path.split("/")), {})
        methods[method] = handler
        if method == "GET":
            methods["HEAD"] = handler

    async def answer(self, request: Request) -> Answer:
        """The handler's answer; 404 for an unknown path, 405 for an unknown method of a path."""
        asked = request.path.split("/")
        for path, methods in self._handlers.items():
            variables = _variables(path, asked)
            if variables is None:
                continue
            handler = methods.get(request.method)
            if handler is None:
                refused = self._refusal(f"{request.path} takes {', '.join(methods)}", 405)
                return replace(refused, headers={"Allow": ", ".join(methods)})
            try:
                return await handler(replace(request, variables=variables))
            except BadRequest as error:
                return self._refusal(str(error), 400)
        return self._refusal(f"there is no {request.path}", 404)


def _variables(path: tuple[str, ...], asked: list[str]) -> dict[str, str] | None:
    """The values of the path's `{name}` segments; None if the path does not match."""
    if len(path) != len(asked):
        return None
    found = {}
    for named, text in zip(path, asked, strict=True):
        if named.startswith("{"):
            found[named[1:-1]] = unquote(text)
        elif named != text:
            return None
    return found
