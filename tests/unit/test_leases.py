import pytest

from agent.idle.leases import MOST, Holder, Lease, LeaseError, Leases


class Processes:
    """The processes that run now."""

    def __init__(self, *running: Holder) -> None:
        self.running = set(running)

    def __call__(self, holder: Holder) -> bool:
        return holder in self.running


def test_a_lease_holds_until_its_time_and_then_expires_once() -> None:
    leases = Leases(Processes())
    build = Lease("build", 0, 100)
    leases.take(build)
    assert leases.active(99.9) == [build]
    assert leases.expire(99.9) == []
    assert leases.active(100) == []
    assert leases.expire(100) == [build]
    assert leases.expire(100) == []


def test_a_lease_of_a_process_ends_with_the_process_or_its_time() -> None:
    holder = Holder(7, 1234)
    processes = Processes(holder)
    leases = Leases(processes)
    leases.take(Lease("make-7", 0, 100, holder))
    assert [lease.name for lease in leases.active(50)] == ["make-7"]
    processes.running = {Holder(7, 5678)}  # its id was reused
    assert [lease.name for lease in leases.expire(50)] == ["make-7"]


def test_taking_a_lease_again_replaces_it() -> None:
    leases = Leases(Processes())
    leases.take(Lease("turn", 0, 10))
    leases.take(Lease("turn", 5, 15))
    assert [lease.until for lease in leases.active(12)] == [15]


def test_release() -> None:
    leases = Leases(Processes())
    leases.take(Lease("a", 0, 10))
    released = leases.release("a")
    assert released is not None
    assert leases.release("a") is None
    assert leases.active(1) == []


@pytest.mark.parametrize("name", ["", "a b", "a\n", "a/b", "x" * 65, "ä", "a\tb"])
def test_names_that_could_not_be_kept_are_refused(name: str) -> None:
    with pytest.raises(LeaseError, match="is not a lease name"):
        Leases(Processes()).take(Lease(name, 0, 10))


def test_the_number_of_leases_is_bounded() -> None:
    leases = Leases(Processes())
    for number in range(MOST):
        leases.take(Lease(f"n{number}", 0, 10))
    leases.take(Lease("n0", 0, 20))
    with pytest.raises(LeaseError, match="there are 100 leases already"):
        leases.take(Lease("one-more", 0, 10))
