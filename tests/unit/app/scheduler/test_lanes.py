from hypothesis import given
from hypothesis import strategies as st

from app.scheduler.lanes import MANY_MESSAGES, MOST_LANES, Lane, cut_lanes, share_messages


def test_a_level_that_fits_is_cut_into_lanes_of_equal_width() -> None:
    lanes = cut_lanes({"openai": 100}, max_parallel_agents=100, lane_width=40)

    assert lanes == [Lane(provider="openai", width=width) for width in (34, 33, 33)]


def test_places_are_shared_in_proportion_to_the_agents_of_each_provider() -> None:
    lanes = cut_lanes({"openai": 30, "anthropic": 10}, max_parallel_agents=8, lane_width=50)

    assert lanes == [Lane(provider="openai", width=6), Lane(provider="anthropic", width=2)]


def test_with_fewer_places_than_providers_the_largest_ones_go_first() -> None:
    lanes = cut_lanes({"a": 1, "b": 5, "c": 3}, max_parallel_agents=2, lane_width=50)

    assert [lane.provider for lane in lanes] == ["b", "c"]


@given(
    agents=st.dictionaries(st.sampled_from("abcdef"), st.integers(1, 500), min_size=1),
    room=st.integers(1, 600),
    lane_width=st.integers(1, 60),
)
def test_lanes_use_all_the_room_there_is_and_no_more(
    agents: dict[str, int], room: int, lane_width: int
) -> None:
    lanes = cut_lanes(agents, max_parallel_agents=room, lane_width=lane_width)

    assert sum(lane.width for lane in lanes) == min(room, sum(agents.values()))
    assert all(1 <= lane.width <= lane_width for lane in lanes)
    for provider, count in agents.items():
        widths = [lane.width for lane in lanes if lane.provider == provider]
        assert sum(widths) <= count
        assert widths or room < len(agents)


def widths(*given: int) -> list[tuple[int, Lane]]:
    return [(index, Lane(provider="a", width=width)) for index, width in enumerate(given)]


def test_few_lanes_have_a_message_each() -> None:
    messages = list(share_messages(widths(*[1] * 16), lane_width=50))

    assert [len(message) for message in messages] == [1] * 16


def test_many_lanes_share_messages_of_about_the_same_size() -> None:
    messages = list(share_messages(widths(*[1] * 100), lane_width=50))

    assert [len(message) for message in messages] == [7] * 14 + [2]


def test_wide_lanes_share_no_message() -> None:
    messages = list(share_messages(widths(*[50] * 100), lane_width=50))

    assert [len(message) for message in messages] == [1] * 100


@given(given=st.lists(st.integers(1, 60), max_size=300), lane_width=st.integers(1, 60))
def test_every_lane_is_in_one_message_that_is_no_longer_and_no_wider_than_it_may_be(
    given: list[int], lane_width: int
) -> None:
    messages = list(share_messages(widths(*given), lane_width=lane_width))

    assert [item for message in messages for item in message] == widths(*given)
    assert len(messages) >= min(len(given), MANY_MESSAGES // 2)
    for message in messages:
        assert 1 <= len(message) <= MOST_LANES
        assert len(message) == 1 or sum(lane.width for _, lane in message) <= lane_width
