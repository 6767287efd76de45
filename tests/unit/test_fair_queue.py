from app.rate_limits.fair_queue import FairQueue


def names(queue: FairQueue[str], count: int) -> list[str]:
    taken = []
    for _ in range(count):
        found = queue.take()
        assert found is not None
        taken.append(found[1][2])
    return taken


def test_inside_a_group_priority_goes_before_arrival() -> None:
    queue: FairQueue[str] = FairQueue()
    for name, priority in (("a", 5), ("b", 9), ("c", 5)):
        queue.put(name, group="run", priority=priority)

    assert names(queue, 3) == ["b", "a", "c"]


def test_a_small_group_behind_a_large_one_is_served_in_turn() -> None:
    queue: FairQueue[str] = FairQueue()
    for index in range(3000):
        queue.put(f"large{index}", group="large", priority=5)
    names(queue, 100)
    for index in range(3):
        queue.put(f"small{index}", group="small", priority=5)

    taken = names(queue, 7)

    assert [name for name in taken if name.startswith("small")] == ["small0", "small1", "small2"]


def test_giving_back_undoes_taking() -> None:
    queue: FairQueue[str] = FairQueue()
    for group in ("x", "y"):
        for index in range(3):
            queue.put(f"{group}{index}", group=group, priority=5)
    expected = names(queue, 6)
    for group in ("x", "y"):
        for index in range(3):
            queue.put(f"{group}{index}", group=group, priority=5)

    taken = [queue.take() for _ in range(4)]
    for found in reversed(taken):
        assert found is not None
        queue.give_back(*found)

    assert names(queue, 6) == expected
    assert queue.take() is None
