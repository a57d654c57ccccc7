"""The reload state machine: all or nothing, bounded, merged."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from supervisor.arbiter.reload import Outcome, Reload, Verdict

TWO = ((2, "edge 1/1"), (3, "gateway 1/1"))


def started(*askers: str) -> Reload:
    reload = Reload()
    for asker in askers:
        reload.ask(asker)
    return reload


def test_it_commits_when_the_last_process_has_prepared() -> None:
    reload = started("client")
    assert reload.prepare(TWO) is None
    assert reload.prepared(2) is None
    assert reload.prepared(3) is Verdict.COMMIT
    assert reload.commit(TWO) is None
    assert reload.swapped(2) is None
    assert reload.swapped(3) is Verdict.DONE
    outcome, told, again = reload.finish(Outcome(changed=("pools.user.servers",)))
    assert outcome.answer() == {
        "ok": True,
        "changed": ["pools.user.servers"],
        "errors": [],
        "processes": 2,
        "acknowledged": ["edge 1/1", "gateway 1/1"],
    }
    assert (told, again) == (["client"], False)


def test_nobody_to_prepare_is_a_commit() -> None:
    reload = started("client")
    assert reload.prepare(()) is Verdict.COMMIT
    assert reload.commit(()) is Verdict.DONE


def test_after_the_commit_a_death_or_a_silence_is_no_failure() -> None:
    reload = started("client")
    reload.prepare(TWO)
    reload.prepared(2)
    reload.prepared(3)
    reload.commit(TWO)
    assert reload.refused(2, ["too late"]) is None
    assert reload.died(2) is None
    assert reload.overdue() is Verdict.DONE
    assert reload.finish(Outcome())[0].ok


def test_one_refusal_aborts_and_names_the_process() -> None:
    reload = started("client")
    reload.prepare(TWO)
    reload.prepared(2)
    assert reload.refused(3, ["gateway.listeners.api.bind: can't be changed"]) is Verdict.ABORT
    assert reload.prepared(3) is None, "late answers change nothing"
    outcome, _, _ = reload.finish(Outcome())
    assert outcome.errors == ("gateway 1/1: gateway.listeners.api.bind: can't be changed",)
    assert outcome.acknowledged == ()


def test_a_death_aborts_only_while_the_process_is_waited_for() -> None:
    reload = started("client")
    reload.prepare(TWO)
    reload.prepared(2)
    assert reload.died(2) is None
    assert reload.died(3) is Verdict.ABORT


def test_a_silent_process_aborts_by_name() -> None:
    reload = started("client")
    reload.prepare(TWO)
    reload.prepared(3)
    assert reload.overdue() is Verdict.ABORT
    outcome, _, _ = reload.finish(Outcome())
    assert outcome.errors == ("edge 1/1: did not answer within 10s",)
    assert reload.overdue() is None


def test_reloads_that_arrive_meanwhile_become_one() -> None:
    reload = Reload()
    assert reload.ask("first")
    reload.prepare(TWO)
    assert not any([reload.ask("second"), reload.ask("third"), reload.ask(None)])
    _, told, again = reload.finish(Outcome(errors=("file:1: bad",)))
    assert (told, again) == (["first"], True)
    reload.prepare(())
    _, told, again = reload.finish(Outcome())
    assert (told, again) == (["second", "third"], False)
    assert reload.ask("later")


def test_a_signal_alone_also_brings_the_following_reload() -> None:
    reload = started("first")
    assert not reload.ask(None)
    assert reload.finish(Outcome())[1:] == (["first"], True)
    assert reload.finish(Outcome())[1:] == ([], False)


class AnyOrder(RuleBasedStateMachine):
    """In whatever order askers, answers and deaths come, each asker is told once, in order, and of the right end."""

    def __init__(self) -> None:
        super().__init__()
        self.reload = Reload()
        self.asked: list[int] = []
        self.told: list[int] = []
        self.preparing = False
        self.committing = False

    @rule()
    def ask(self) -> None:
        asker = len(self.asked)
        self.asked.append(asker)
        if self.reload.ask(asker):
            self.begin()

    def begin(self) -> None:
        self.preparing = True
        assert self.reload.prepare(TWO) is None

    @rule(process=st.sampled_from([2, 3, 4]), what=st.sampled_from(["prepared", "refused", "died", "swapped"]))
    def event(self, process: int, what: str) -> None:
        if what == "prepared":
            verdict = self.reload.prepared(process)
        elif what == "refused":
            verdict = self.reload.refused(process, ["no"])
        elif what == "swapped":
            verdict = self.reload.swapped(process)
        else:
            verdict = self.reload.died(process)
        self.settle(verdict)

    @rule()
    def overdue(self) -> None:
        self.settle(self.reload.overdue())

    def settle(self, verdict: Verdict | None) -> None:
        if verdict is None:
            return
        assert self.preparing, "a verdict is given once"
        if verdict is Verdict.COMMIT:
            assert not self.committing, "and no second time"
            self.committing = True
            assert self.reload.commit(TWO) is None
            return
        assert self.committing is (verdict is Verdict.DONE)
        self.preparing = self.committing = False
        outcome, told, again = self.reload.finish(Outcome())
        assert outcome.ok is (verdict is Verdict.DONE)
        self.told += [asker for asker in told if isinstance(asker, int)]
        if again:
            self.begin()

    @invariant()
    def everyone_is_told_in_order(self) -> None:
        assert self.told == self.asked[: len(self.told)]
        assert self.preparing == self.reload.active
        if not self.reload.active:
            assert self.told == self.asked


TestAnyOrder = AnyOrder.TestCase
TestAnyOrder.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
