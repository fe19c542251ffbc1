"""Gradual rollout, step by step."""

from knlocal.serving.rollout import SECOND, ConfigurationRollout, RevisionShare, Rollout


def aim(revision: str, percent: int = 100, tag: str = "") -> Rollout:
    return Rollout([ConfigurationRollout.steady("cfg", tag, percent, revision)])


def shares(rollout: Rollout) -> list[tuple[str, int]]:
    return [(r.revision, r.percent) for r in rollout.configurations[0].revisions]


def test_the_first_state_is_what_is_aimed_for() -> None:
    assert shares(aim("a").step(None, 0)) == [("a", 100)]
    assert shares(aim("a").step(aim("a"), 5)) == [("a", 100)]


def test_a_new_revision_starts_with_one_percent_and_ends_with_all() -> None:
    state = aim("b").step(aim("a"), 1)
    assert shares(state) == [("a", 99), ("b", 1)]
    state.observe_ready(1 * SECOND, 11)
    (plan,) = state.configurations
    assert (plan.step_size, plan.step_duration) == (10, SECOND)
    now = SECOND
    seen = []
    while not state.done:
        now = plan.next_step_time
        state = aim("b").step(state, now)
        (plan,) = state.configurations
        seen.append(shares(state)[-1][1])
    assert seen == [11, 21, 31, 41, 51, 61, 71, 81, 91, 100]
    assert plan.start_time == 0


def test_nothing_moves_before_its_time() -> None:
    state = aim("b").step(aim("a"), SECOND)
    state.observe_ready(SECOND, 60)
    early = aim("b").step(state, SECOND + 1)
    assert shares(early) == [("a", 99), ("b", 1)]


def test_a_newer_revision_during_a_rollout_takes_from_the_newest_first() -> None:
    state = Rollout(
        [
            ConfigurationRollout(
                "cfg", "", 100, [RevisionShare("a", 60), RevisionShare("b", 40)], start_time=1,
                next_step_time=10, step_duration=5, step_size=20,
            )
        ]
    )  # fmt: skip
    state = aim("c").step(state, 2 * SECOND)
    assert shares(state) == [("a", 60), ("b", 39), ("c", 1)]
    state.observe_ready(2 * SECOND, 3)
    for _ in range(3):
        if not state.done:
            state = aim("c").step(state, state.next_step() or 0)
    assert shares(state) == [("c", 100)]


def test_a_change_of_the_share_goes_to_the_newest_and_comes_from_the_oldest() -> None:
    state = Rollout(
        [ConfigurationRollout("cfg", "", 50, [RevisionShare("a", 30), RevisionShare("b", 20)])]
    )
    assert shares(aim("b", 80).step(state, 1)) == [("a", 30), ("b", 50)]
    assert shares(aim("b", 30).step(state, 1)) == [("a", 10), ("b", 20)]
    assert shares(aim("b", 20).step(state, 1)) == [("b", 20)]


def test_one_percent_and_new_tags_do_not_roll() -> None:
    assert shares(aim("b", 1).step(aim("a", 1), 1)) == [("b", 1)]
    assert shares(aim("b", tag="t").step(aim("a"), 1)) == [("b", 100)]


def test_the_state_survives_as_json_and_nonsense_is_no_state() -> None:
    state = aim("b", tag="t").step(aim("a", tag="t"), 7)
    state.observe_ready(7, 30)
    again = Rollout.from_json(state.to_json())
    assert again == state
    for text in (None, "", "{}", "[]", '{"configurations":[{"percent":3}]}'):
        assert Rollout.from_json(text) is None
    wrong_sum = '{"configurations":[{"configurationName":"c","percent":100,"revisions":[]}]}'
    assert Rollout.from_json(wrong_sum) is None
