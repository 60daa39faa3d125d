from agent.pace import Bucket, doubled


def test_a_bucket_gives_its_burst_at_once_and_then_its_rate() -> None:
    bucket = Bucket(10, 0.0)
    bucket.take(10, rate=2, burst=10, now=0.0)
    assert bucket.level(2, 10, 0.0) == 0
    assert bucket.level(2, 10, 1.5) == 3
    assert bucket.level(2, 10, 100.0) == 10


def test_a_debt_is_paid_back_first() -> None:
    bucket = Bucket(10, 0.0)
    bucket.take(14, rate=2, burst=10, now=0.0)
    assert bucket.level(2, 10, 1.0) == -2
    bucket.take(1, rate=2, burst=10, now=3.0)
    assert (bucket.tokens, bucket.at) == (1, 3.0)


def test_a_clock_that_stands_still_or_steps_back_takes_nothing_away() -> None:
    bucket = Bucket(4, 10.0)
    assert bucket.level(2, 10, 5.0) == 4


def test_pauses_double_up_to_the_longest() -> None:
    assert [doubled(0.5, times, 3.0) for times in range(5)] == [0.5, 1.0, 2.0, 3.0, 3.0]
    assert doubled(1.0, 10_000, 1e30) == 2.0**64
