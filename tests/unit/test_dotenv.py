"""`.env` files as python-dotenv reads them; errors name the line, never the value."""

from pathlib import Path

import pytest
from dotenv import dotenv_values
from hypothesis import given, settings
from hypothesis import strategies as st

from deploy.swarm import dotenv

WHOLE = """\
# a comment
PLAIN=value
export EXPORTED=yes
COMMENTED=value # not this
HASH=a#b
SINGLE='it''s # here'
DOUBLE="two\\nlines"
SEVERAL="one
two"
EMPTY=
FROM=${PLAIN}/more
DEFAULT=${NOWHERE:-fallback}
"""


def test_it_means_what_python_dotenv_means(tmp_path: Path) -> None:
    path = tmp_path / "env"
    path.write_text(WHOLE.replace("'it''s # here'", "'its # here'"))
    assert dotenv.read(path) == dotenv_values(path)


@settings(max_examples=150, deadline=None)
@given(st.text(alphabet=st.sampled_from("AB= '\"#\n\\$x"), max_size=40))
def test_whatever_it_reads_is_what_python_dotenv_reads(text: str) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "env")
        path.write_text(text)
        try:
            found = dotenv.read(path)
        except dotenv.EnvFileError as error:
            assert " line " in str(error)
        else:
            assert found == dotenv_values(path)


@pytest.mark.parametrize(
    "content",
    ["A=1\nB=ä\n".encode("utf-8-sig"), "A=1\r\nB=ä\r\n".encode("utf-16"), "A=1\nB=ä\n".encode()],
    ids=["bom", "utf-16", "utf-8"],
)
def test_encodings_that_editors_write(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "env"
    path.write_bytes(content)
    assert dotenv.read(path) == {"A": "1", "B": "ä"}


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"A=1\n\nthe secret\n", "line 3: expected NAME=VALUE"),
        (b"A=1\nB-C=secret\n", "line 2: a name has letters"),
        (b"A=1\n2B=secret\n", "line 2"),
        (b"A=1\nB=sec\xffret\n", "line 2: it is not UTF-8 text"),
        (b"A='secret\n", "line 1"),
        (b"A=${NOT_SET_ANYWHERE}secret\n", "line 1: ${NOT_SET_ANYWHERE} is not set"),
    ],
)
def test_errors_name_the_line_and_not_the_value(tmp_path: Path, content: bytes, says: str) -> None:
    path = tmp_path / "env"
    path.write_bytes(content)
    with pytest.raises(dotenv.EnvFileError) as error:
        dotenv.read(path)
    assert says in str(error.value)
    assert "secret" not in str(error.value)
