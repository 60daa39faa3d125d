from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent import durations
from agent.settings import SettingsError, load, reference, units
from agent.settings.units import Endpoint


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90s", 90), ("30m", 1800), ("2h", 7200), ("1h30m", 5400), ("500ms", 0.5), ("1.5h", 5400)],
)
def test_durations(text: str, seconds: float) -> None:
    assert durations.duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "90", "h", "1 h", "-1s", "1y", "1s1", "s1", "1e3s", "٣s"])
def test_durations_without_a_clear_meaning_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="a duration"):
        durations.duration(text)


@pytest.mark.parametrize(
    ("text", "count"), [("0", 0), ("512", 512), ("64KiB", 65536), ("1GiB", 1 << 30), ("5B", 5)]
)
def test_sizes(text: str, count: int) -> None:
    assert units.size(text) == count


@pytest.mark.parametrize("text", ["", "1k", "1 MiB", "-1", "1.5MiB", "1kb"])
def test_sizes_without_a_clear_meaning_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="a size"):
        units.size(text)


@pytest.mark.parametrize(
    ("text", "endpoint"),
    [
        ("2222", Endpoint("", 2222)),
        ("*:22", Endpoint("", 22)),
        ("127.0.0.1:1", Endpoint("127.0.0.1", 1)),
        ("[::1]:65535", Endpoint("::1", 65535)),
    ],
)
def test_endpoints(text: str, endpoint: Endpoint) -> None:
    assert units.endpoint(text) == endpoint
    assert units.endpoint(str(endpoint)) == endpoint


@pytest.mark.parametrize(
    "text", ["", "0", "65536", ":22", "host:22", "::1:22", "1.2.3:22", "[1::2::3]:4", "1 2"]
)
def test_endpoints_that_cannot_be_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="a port"):
        units.endpoint(text)


@pytest.mark.parametrize("text", ["", "a", "./a", "/a b", "/%h", '/"', "/a\nb"])
def test_paths_that_sshd_could_misread_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="absolute path"):
        units.absolute_path(text)


PARSERS = [durations.duration, units.size, units.count, units.endpoint, units.absolute_path]


@given(st.text(), st.sampled_from(PARSERS))
def test_no_text_breaks_a_parser(text: str, parse: object) -> None:
    try:
        parse(text)  # type: ignore[operator]
    except ValueError as error:
        assert str(error)


@given(st.dictionaries(st.text(st.characters(exclude_characters="=\0")), st.text()))
def test_any_environment_gives_settings_or_all_its_problems(environ: dict[str, str]) -> None:
    environ = {f"SWARM_{name.upper()}": value for name, value in environ.items()}
    environ.pop("SWARM_CONFIG", None)
    try:
        loaded = load(environ, privileged=True)
    except SettingsError as error:
        assert {problem.setting for problem in error.problems} <= set(environ)
    else:
        assert set(loaded.sources.values()) <= {"default", "environment"}


def test_defaults_of_root_and_of_others() -> None:
    assert load({}, privileged=True).settings.run_dir == "/run/swarm"
    assert load({}, privileged=False).settings.run_dir.endswith("/.local/state/swarm/run")


def test_variables_of_a_session_are_no_mistakes() -> None:
    load({"SWARM_CLIENT": "1.2.3.4", "SWARM_SESSION": "x"}, privileged=True)


def test_the_reference_in_docs_is_the_code() -> None:
    page = Path(__file__).parents[2] / "docs" / "configuration.md"
    assert page.read_text() == reference.markdown(), "run make docs"
