from agent.floods import WINDOW, Floods, Summed

LINES = 60


def test_a_flood_is_cut_and_the_rest_is_told_once_when_its_window_is_over() -> None:
    floods = Floods(LINES)
    admitted = [floods.admit("ban.started", float(n) / 100) for n in range(LINES + 40)]
    assert admitted.count(True) == LINES
    assert floods.due(1.0) == WINDOW - 1.0
    assert floods.over(WINDOW - 0.001) == []
    assert floods.over(WINDOW) == [Summed("ban.started", 40, WINDOW)]
    assert floods.due(WINDOW) is None
    assert floods.over(2 * WINDOW) == []


def test_one_event_does_not_use_up_the_lines_of_another() -> None:
    floods = Floods(LINES)
    for _ in range(LINES + 1):
        floods.admit("a", 0.0)
    assert floods.admit("b", 0.0)


def test_after_the_window_lines_are_written_again() -> None:
    floods = Floods(LINES)
    for _ in range(LINES + 1):
        floods.admit("a", 0.0)
    assert not floods.admit("a", 1.0)
    floods.over(WINDOW)
    assert floods.admit("a", WINDOW)
