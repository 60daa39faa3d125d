"""Every secret arrives unchanged, or is refused by name."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deploy.local import fly_secrets
from deploy.swarm import secrets

_NASTY = st.text(alphabet=st.sampled_from("\"'#\n\r \t=\\ab\x85\xa0é"), max_size=24)
_ANY = st.text(alphabet=st.characters(codec="utf-8", exclude_characters="\0"), max_size=60)
_NAMES = st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,8}", fullmatch=True)


def arrives(values: dict[str, str]) -> dict[str, str]:
    """The platform's values: through flyctl's parser for an import, its trimming otherwise."""
    planned = secrets.plan(values)
    found = fly_secrets.parse(planned.imported)
    assert not found.keys() & planned.alone.keys()
    for name, value in planned.alone.items():
        sent = value.encode()
        assert len(sent) <= fly_secrets.MOST_BY_SET
        found[name] = sent.decode().strip(secrets.GO_SPACE)
    return found


@settings(max_examples=600, deadline=None)
@given(st.dictionaries(_NAMES, _NASTY | _ANY, max_size=4))
def test_every_value_arrives_or_is_refused(values: dict[str, str]) -> None:
    try:
        found = arrives(values)
    except secrets.SecretError as error:
        assert any(f"secret {name} " in str(error) for name in values)
    else:
        assert found == values


@pytest.mark.parametrize("end", ["\r\n", "\0", "\udce9", "x" * 70000])
@given(_NASTY)
def test_no_error_shows_a_value(end: str, more: str) -> None:
    with pytest.raises(secrets.SecretError) as error:
        secrets.plan({"NAME": f"{more}\r\ncorrect horse{end}"})
    assert "correct horse" not in str(error.value)


@pytest.mark.parametrize(
    "value",
    [
        "p#1@h",
        '"',
        "'",
        '"""',
        'a"#b',
        "two\nlines",
        "ends in a line\n",
        "\n",
        "",
        "windows\r\nlines",
        'one\nends in three"""\nquotes',
        'quote " and # in\nthe first line',
        "-----BEGIN KEY-----\nabc=\n-----END KEY-----\n",
        "x" * 65000,
        "\\n is no line end",
        " spaces ",
    ],
)
def test_values_that_people_have_arrive(value: str) -> None:
    assert arrives({"NAME": value, "OTHER": "o"}) == {"NAME": value, "OTHER": "o"}


@pytest.mark.parametrize(
    ("value", "why"),
    [
        ("a\0b", "NUL"),
        ("x" * 70000, "70000 bytes"),
        ("windows\r\nlines\r\n", "begins or ends with white space"),
        ("\udce9", "not UTF-8"),
    ],
)
def test_what_no_way_carries_is_refused_by_name(value: str, why: str) -> None:
    with pytest.raises(secrets.SecretError, match=why) as error:
        secrets.plan({"GOOD": "g", "BAD": value})
    assert "secret BAD " in str(error.value)


def test_the_plain_form_would_not_arrive() -> None:
    """The negative control: the form that was used before."""
    assert fly_secrets.parse(b"A=p#1@h\n") == {"A": "p"}
    with pytest.raises(IndexError):
        fly_secrets.parse(b'A="\n')
