"""`.env` files, read as python-dotenv reads them; errors name the line, never the value."""

import io
import os
import re
from pathlib import Path

from dotenv.main import resolve_variables
from dotenv.parser import Binding, parse_stream
from dotenv.variables import Variable, parse_variables

from deploy.swarm.secrets import NAME

_MARKS = (
    (b"\xef\xbb\xbf", "utf-8-sig"),
    (b"\xff\xfe", "utf-16"),
    (b"\xfe\xff", "utf-16"),
)


class EnvFileError(Exception):
    """A file cannot be read as a dotenv file; the message names the line."""


def read(path: Path) -> dict[str, str]:
    """Names and values, `${NAME}` replaced from the file and the environment.

    Raises `EnvFileError`.
    """
    text = _text(path)
    pairs: list[tuple[str, str]] = []
    known = set(os.environ)
    for binding in parse_stream(io.StringIO(text, newline=None)):
        name, value = _checked(path, binding)
        if name is None or value is None:
            continue
        for atom in parse_variables(value):
            if isinstance(atom, Variable) and atom.default is None and atom.name not in known:
                raise EnvFileError(
                    f"{path} line {_line(binding)}: ${{{atom.name}}} is not set, neither in "
                    "the file nor in the environment"
                )
        known.add(name)
        pairs.append((name, value))
    found = resolve_variables(pairs, override=True)
    return {name: value or "" for name, value in found.items()}


def _checked(path: Path, binding: Binding) -> tuple[str | None, str | None]:
    if binding.error or (binding.key is not None and binding.value is None):
        raise EnvFileError(f"{path} line {_line(binding)}: expected NAME=VALUE")
    if binding.key is not None and not NAME.fullmatch(binding.key):
        raise EnvFileError(
            f"{path} line {_line(binding)}: a name has letters, digits and _ only, and does not "
            "begin with a digit"
        )
    return binding.key, binding.value


def _line(binding: Binding) -> int:
    """Its line: the parser counts blank lines and comments before it as part of it."""
    lead = re.match(r"\s*", binding.original.string)
    return binding.original.line + (lead.group().count("\n") if lead else 0)


def _text(path: Path) -> str:
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise EnvFileError(f"{path}: {error.strerror}") from error
    encoding = next((name for mark, name in _MARKS if raw.startswith(mark)), "utf-8")
    try:
        return raw.decode(encoding)
    except UnicodeDecodeError as error:
        number = raw[: error.start].count(b"\n") + 1
        raise EnvFileError(f"{path} line {number}: it is not {encoding.upper()} text") from None
