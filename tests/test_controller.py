"""The controller: its policies, what they learn by, and which version proposes what."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import product
from math import exp, log, prod
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from pnas_fast.protocols import Event, Measurement, Noted, Proposal, StrategyError, Trial
from pnas_fast.space import OPERATIONS, Cell, CellError
from pnas_fast.space.neighbours import draw
from pnas_fast.strategies.controller import DECAY, Controller, notes_on_controller
from pnas_fast.strategies.policy import Choices, LstmPolicy, Policy, TablePolicy
from pnas_fast.strategies.policy_gradient import (
    ALGORITHMS,
    CLIP,
    Algorithm,
    Learner,
    ppo_loss,
    reinforce_loss,
)
from pnas_fast.strategies.random import Random
from strategy_runs import done, drive, measure, proposals_of, true_accuracy

FAILED = Measurement("failed", {}, "the loss is not finite")
WAYS = [("lstm", "ppo"), ("lstm", "reinforce"), ("table", "ppo"), ("table", "reinforce")]


def make_policy(kind: str, blocks: int = 5, operations: Sequence[str] = OPERATIONS) -> Policy:
    choices = Choices(blocks, operations)
    return TablePolicy(choices) if kind == "table" else LstmPolicy(choices, np.random.default_rng(0))


def opinionated(kind: str, blocks: int, operations: Sequence[str]) -> Policy:
    """A policy far from uniform."""
    policy, rng = make_policy(kind, blocks, operations), np.random.default_rng(1)
    with torch.no_grad():
        for parameter in policy.parameters:
            parameter += torch.tensor(rng.normal(0, 1.0, parameter.shape))
    return policy


def drawn(policy: Policy, count: int) -> list[Cell]:
    rng = np.random.default_rng(2)
    return [policy.sample(rng.random(len(policy.choices.limits)))[0] for _ in range(count)]


def evaluated(policy: Policy, cells: Sequence[Cell]) -> tuple[Tensor, Tensor]:
    with torch.no_grad():
        return policy.evaluate(policy.choices.of(cells))


class TestPolicies:
    @given(st.integers(1, 5), st.sets(st.sampled_from(OPERATIONS), min_size=1), st.integers(0, 99))
    @settings(max_examples=30, deadline=None)
    def test_a_cell_is_its_choices(self, blocks: int, names: set[str], seed: int) -> None:
        choices = Choices(blocks, sorted(names))
        cells = [draw(blocks, sorted(names), np.random.default_rng([seed, index])) for index in range(3)]
        values = choices.of(cells)
        assert values.shape == (3, 4 * blocks)
        assert bool((values < torch.tensor(choices.limits)).all())
        assert [choices.cell(row) for row in values.tolist()] == cells

    def test_choices_are_both_inputs_then_both_operations_of_each_block(self) -> None:
        choices = Choices(2, ["sep3x3", "identity", "max_pool3x3"])
        assert choices.limits == (2, 2, 3, 3, 3, 3, 3, 3)
        cell = Cell.parse("0:identity+1:sep3x3,2:max_pool3x3+1:identity")
        assert choices.of([cell]).tolist() == [[0, 1, 1, 0, 2, 1, 2, 1]]

    @pytest.mark.parametrize("kind", ["lstm", "table"])
    def test_untrained_is_as_good_as_uniform(self, kind: str) -> None:
        policy = make_policy(kind)
        raw = log(prod(policy.choices.limits))
        assert raw == pytest.approx(33.95, abs=0.01)
        _, entropy = evaluated(policy, drawn(policy, 100))
        assert float(entropy.mean()) == pytest.approx(raw, rel=0.01 if kind == "lstm" else 1e-12)

    @pytest.mark.parametrize("kind", ["lstm", "table"])
    def test_values_a_choice_cannot_have_take_no_probability(self, kind: str) -> None:
        """All cells there are have a probability of 1 together, however far the policy is from uniform."""
        policy = opinionated(kind, 2, OPERATIONS[:2])
        cells = [policy.choices.cell(values) for values in product(*map(range, policy.choices.limits))]
        probability = evaluated(policy, cells)[0].exp()
        assert len(cells) == 576
        assert float(probability.sum()) == pytest.approx(1, abs=1e-12)
        assert float(probability.max()) > 10 / 576

    @pytest.mark.parametrize("kind", ["lstm", "table"])
    @given(st.lists(st.floats(0, 1, exclude_max=True), min_size=20, max_size=20), st.booleans())
    @settings(max_examples=40, deadline=None)
    def test_any_draws_make_a_cell(self, kind: str, draws: list[float], extreme: bool) -> None:
        policy = opinionated(kind, 5, OPERATIONS)
        if extreme:  # all but certain, of a value that most inputs cannot have
            policy.parameters[4 if kind == "lstm" else -3].data[..., -1] += 700.0
        numbers = np.where(np.array(draws) > 0.9, np.nextafter(1, 0), draws)
        cell, log_probability = policy.sample(numbers)
        assert len(cell) == 5
        assert log_probability == pytest.approx(float(evaluated(policy, [cell])[0]), rel=1e-9, abs=1e-9)

    def test_cells_come_as_often_as_they_are_probable(self) -> None:
        """Of a choice with probabilities p, equally spaced draws give each value its share."""
        policy = make_policy("table", 1, OPERATIONS[:4])
        shares = [0.1, 0.2, 0.3, 0.4]
        policy.parameters[3].data = torch.tensor(shares, dtype=torch.float64).log()
        found = [
            OPERATIONS.index(policy.sample(np.array([0, 0, 0, draw]))[0].blocks[0].op2)
            for draw in (np.arange(1_000) + 0.5) / 1_000
        ]
        assert np.bincount(found).tolist() == [100, 200, 300, 400]
        assert found == sorted(found)

    def test_lstm_is_torch_s(self) -> None:
        policy = opinionated("lstm", 3, OPERATIONS)
        cells = drawn(policy, 7)
        values = policy.choices.of(cells)
        start, weight, bias, inputs, in_layer, in_bias, names, op_layer, op_bias = policy.parameters
        lstm = nn.LSTM(100, 100, dtype=torch.float64, batch_first=True)
        lstm.weight_ih_l0.data, lstm.weight_hh_l0.data = weight[:100].mT, weight[100:].mT
        lstm.bias_ih_l0.data, lstm.bias_hh_l0.data = bias, torch.zeros_like(bias)
        read = [(inputs if index % 4 < 2 else names)[values[:, index]] for index in range(11)]
        hidden, _ = lstm(torch.stack([start.expand(7, -1), *read], 1))
        expected = torch.zeros(7, dtype=torch.float64)
        for index, limit in enumerate(policy.choices.limits):
            layer, offset = (in_layer, in_bias) if index % 4 < 2 else (op_layer, op_bias)
            logits = hidden[:, index] @ layer + offset
            logits[:, limit:] = -torch.inf
            expected += logits.log_softmax(1)[torch.arange(7), values[:, index]]
        torch.testing.assert_close(policy.evaluate(values)[0], expected, rtol=1e-10, atol=1e-10)

    @pytest.mark.parametrize("kind", ["lstm", "table"])
    def test_gradients_are_those_of_finite_differences(self, kind: str) -> None:
        policy = opinionated(kind, 2, OPERATIONS[:3])
        values = policy.choices.of(drawn(policy, 6))
        advantage = torch.tensor([1.0, -1.0, 0.5, -2.0, 0.1, 3.0], dtype=torch.float64)
        sampled = policy.evaluate(values)[0].detach() + 0.1

        def loss() -> Tensor:
            log_probability, entropy = policy.evaluate(values)
            return ppo_loss(log_probability, sampled, advantage) - 0.1 * entropy.mean()

        gradients = torch.autograd.grad(loss(), policy.parameters)
        rng = np.random.default_rng(3)
        for parameter, gradient in zip(policy.parameters, gradients, strict=True):
            direction = torch.tensor(rng.normal(size=parameter.shape))
            before = parameter.detach().clone()
            with torch.no_grad():
                sides = [
                    loss() for step in (1e-6, -1e-6) if parameter.copy_(before + step * direction) is not None
                ]
                parameter.copy_(before)
            slope = float(sides[0] - sides[1]) / 2e-6
            assert slope == pytest.approx(float((gradient * direction).sum()), rel=1e-5, abs=1e-7)

    @pytest.mark.parametrize(
        ("blocks", "names"), [(0, OPERATIONS), (6, OPERATIONS), (3, ["sep9x9"]), (3, [])]
    )
    def test_what_is_outside_the_space_is_refused(self, blocks: int, names: Sequence[str]) -> None:
        with pytest.raises(CellError, match="allowed are"):
            Choices(blocks, names)

    def test_an_operation_that_is_no_choice_is_refused(self) -> None:
        with pytest.raises(CellError, match="'identity' is not in this search space"):
            Choices(1, ["sep3x3"]).of([Cell.parse("0:identity+0:sep3x3")])


def learned(policy: Policy, algorithm: Algorithm, cells: Sequence[Cell], advantage: Tensor) -> Tensor:
    """Logarithms of how much likelier a policy has made the cells that it learned from."""
    values, sampled = policy.choices.of(cells), evaluated(policy, cells)[0]
    rate = 0.05 if isinstance(policy, TablePolicy) else 0.004
    Learner(policy, algorithm, rate).learn(values, sampled, advantage)
    return evaluated(policy, cells)[0] - sampled


class TestLearning:
    def test_ppo_follows_a_ratio_up_to_the_clip(self) -> None:
        ratio = torch.tensor([1.0, 1.1, 1.5, 0.5, 1.5, 0.5], dtype=torch.float64)
        advantage = torch.tensor([2.0, 2.0, 2.0, 2.0, -2.0, -2.0], dtype=torch.float64)
        now = ratio.log().requires_grad_()
        loss = ppo_loss(now, torch.zeros(6, dtype=torch.float64), advantage)
        (gradient,) = torch.autograd.grad(loss, now)
        worth = [2.0, 2.2, 2 * (1 + CLIP), 1.0, -3.0, -2 * (1 - CLIP)]
        assert loss.item() == pytest.approx(-sum(worth) / 6)
        assert (-6 * gradient).tolist() == pytest.approx([2.0, 2.2, 0.0, 1.0, -3.0, 0.0])

    def test_reinforce_follows_the_advantage(self) -> None:
        now = torch.tensor([-3.0, -4.0], dtype=torch.float64, requires_grad=True)
        loss = reinforce_loss(now, torch.zeros(2), torch.tensor([0.5, -0.25], dtype=torch.float64))
        assert loss.item() == pytest.approx(-(-1.5 + 1.0) / 2)
        assert torch.autograd.grad(loss, now)[0].tolist() == pytest.approx([-0.25, 0.125])

    @pytest.mark.parametrize("kind", ["lstm", "table"])
    def test_after_one_step_of_ppo_ratios_differ_from_one_and_clipping_acts(self, kind: str) -> None:
        cells = drawn(make_policy(kind), 20)
        advantage = torch.tensor(np.random.default_rng(4).normal(size=20))
        ppo = ALGORITHMS["ppo"]
        free = replace(ppo, loss=lambda now, then, good: -((now - then).exp() * good).mean())
        one, four, unclipped = (
            learned(make_policy(kind), algorithm, cells, advantage)
            for algorithm in (replace(ppo, steps=1), ppo, free)
        )
        assert float(one.abs().min()) > 1e-4
        assert float(one.exp().max()) > 1 + CLIP
        assert float((four * advantage).mean()) > 0
        assert not torch.equal(four, unclipped)
        assert float(four.abs().mean()) < float(unclipped.abs().mean())

    @pytest.mark.parametrize("algorithm", sorted(ALGORITHMS))
    def test_where_nothing_is_better_entropy_grows(self, algorithm: str) -> None:
        policy = opinionated("table", 2, OPERATIONS)
        cells = drawn(policy, 5)
        _, before = evaluated(policy, cells)
        learned(policy, ALGORITHMS[algorithm], cells, torch.zeros(5))
        assert bool((evaluated(policy, cells)[1] > before).all())

    @pytest.mark.parametrize(("policy", "algorithm"), WAYS)
    def test_the_better_of_two_arms_becomes_almost_certain(self, policy: str, algorithm: str) -> None:
        """Four ways to write three cells; the one that reads one input twice is good."""
        good = Cell.parse("1:identity+1:identity")
        trials = drive(
            Controller(
                1, ["identity"], 80, 1, 0, 5, 10, policy, algorithm, 0.02 if policy == "lstm" else 0.3
            ),
            evaluate=lambda proposal: done(0.9 if proposal.cell == good else 0.6),
        )
        first, last = (next(t for t in order if t.cell == good) for order in (trials, trials[::-1]))
        assert exp(float(first.proposal.note["log_probability"])) == pytest.approx(0.25, abs=0.05)
        assert exp(float(last.proposal.note["log_probability"])) > 0.9
        assert sum(trial.cell == good for trial in trials[-50:]) > 40


def controller(lag: int = 16, batch: int = 20, budget: int = 100, **options: Any) -> Controller:
    return Controller(3, OPERATIONS, budget, 1, 0, lag, batch, **({"policy": "table"} | options))


def some(number: int) -> Measurement:
    return done(0.5 + (number * 37 % 100) / 250)


@pytest.mark.parametrize(("lag", "batch"), [(0, 20), (5, 20), (16, 20), (20, 20), (50, 20), (30, 10), (0, 7)])
class TestLag:
    def test_the_version_that_proposes_follows_from_the_lag(self, lag: int, batch: int) -> None:
        found = [proposal.note["version"] for proposal in proposals_of(controller(lag, batch), some)]
        assert found == [max(0, (number - lag) // batch) for number in range(100)]

    def test_a_proposal_depends_on_the_batches_before_its_lag_and_no_others(
        self, lag: int, batch: int
    ) -> None:
        """Where batch 1 is measured otherwise, proposals change from the first that may have seen it."""
        one = proposals_of(controller(lag, batch), some)
        other = proposals_of(
            controller(lag, batch),
            lambda number: some(number + 5 * (batch <= number < 2 * batch)),
        )
        seen = 2 * batch + lag
        assert one[:seen] == other[:seen]
        assert one[seen].note["log_probability"] != other[seen].note["log_probability"]

    def test_all_that_may_see_no_more_is_proposed_at_once(self, lag: int, batch: int) -> None:
        strategy = controller(lag, batch)
        proposals = list(strategy.ask())
        assert len(proposals) == lag + 1
        for number in range(40):
            strategy.tell(Trial(number, proposals[number], some(number)))
            proposals += strategy.ask()
            assert len(proposals) == min(100, number + lag + 2)

    def test_it_learns_from_what_was_told_by_the_version_that_proposed_it(
        self, lag: int, batch: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Of each batch it learns from those that did not fail, beside the baseline before it."""
        learned = list[tuple[Tensor, Tensor, Tensor]]()
        learn = Learner.learn

        def spy(self: Learner, values: Tensor, sampled: Tensor, advantage: Tensor) -> None:
            learned.append((values, sampled, advantage))
            learn(self, values, sampled, advantage)

        monkeypatch.setattr(Learner, "learn", spy)
        events = list[Event]()
        strategy = controller(lag, batch, policy="lstm", rate=0.01, budget=60, emit=events.append)
        trials = drive(strategy)
        assert len(learned) == len(events) == len(trials) // batch
        baseline = None
        for index, (event, (values, sampled, advantage)) in enumerate(zip(events, learned, strict=True)):
            members = trials[index * batch : (index + 1) * batch]
            good = [trial for trial in members if trial.done]
            rewards = [trial.accuracy for trial in good]
            baseline = np.mean(rewards) if baseline is None else baseline
            assert values.tolist() == Choices(3, OPERATIONS).of(trial.cell for trial in good).tolist()
            noted = [trial.proposal.note["log_probability"] for trial in good]
            assert sampled.tolist() == pytest.approx(noted, rel=1e-12)
            assert advantage.tolist() == pytest.approx(np.array(rewards) - baseline, abs=1e-12)
            assert isinstance(event, Noted)
            assert event.kept
            assert event.values["update"] == index + 1
            assert event.values["baseline"] == pytest.approx(baseline)
            assert event.values["mean_reward"] == pytest.approx(np.mean(rewards))
            keys = {trial.proposal.key("") for trial in trials[: (index + 1) * batch]}
            assert event.values["distinct"] == len(keys)
            for reward in rewards:
                baseline = DECAY * baseline + (1 - DECAY) * reward


def notes_of(measured: Callable[[int], Measurement], **options: Any) -> list[Noted]:
    events = list[Event]()
    proposals_of(controller(emit=events.append, **options), measured)
    return [event for event in events if isinstance(event, Noted)]


def test_a_batch_of_failures_teaches_nothing_and_counts() -> None:
    """Nor does it end a search: twenty in a row would."""
    notes = notes_of(lambda number: FAILED if number < 10 else done(0.5 + number / 1_000), batch=5, lag=2)
    assert len(notes) == 20
    assert [note.values["mean_reward"] for note in notes[:2]] == [None, None]
    assert [note.values["baseline"] for note in notes[:3]] == [None, None, pytest.approx(0.512)]
    assert notes[0].values["entropy"] == notes[2].values["entropy"]
    later = notes_of(lambda number: FAILED if 50 <= number < 60 else some(number), batch=5, lag=2)
    assert later[10].values["baseline"] == later[11].values["baseline"] == later[12].values["baseline"]
    assert later[10].values["mean_reward"] is None


@pytest.mark.parametrize("nothing", [FAILED, Measurement("done", {}), done(float("nan"))])
def test_what_has_no_accuracy_is_left_out(nothing: Measurement) -> None:
    notes = notes_of(lambda number: nothing if number % 3 else done(0.25))
    assert {note.values["mean_reward"] for note in notes} == {0.25}


def test_a_repeat_is_asked_and_learned_from_but_not_trained() -> None:
    measured = list[Proposal]()

    def evaluate(proposal: Proposal) -> Measurement:
        measured.append(proposal)
        return done(0.5 + 0.1 * str(proposal.cell.canonical()).count("identity"))

    events = list[Event]()
    strategy = Controller(1, OPERATIONS[4:6], 30, 1, 0, policy="table", rate=0.2, emit=events.append)
    trials = drive(strategy, evaluate=evaluate)
    assert len(trials) == 90
    assert len(measured) == len({trial.proposal.key("") for trial in trials}) <= 10
    assert len(events) == 4


def test_a_longer_search_begins_as_a_shorter_one_did() -> None:
    short, long = (drive(controller(budget=budget)) for budget in (50, 90))
    assert long[:50] == short


def test_what_stood_in_a_proposal_s_place_is_learned_from() -> None:
    """One of twenty that are bad is replaced by a good cell, and the next are like it."""
    good = Cell.parse("0:sep7x7+0:sep7x7,2:sep7x7+2:sep7x7,3:sep7x7+3:sep7x7")
    options: dict[str, Any] = {"rate": 0.5, "lag": 0, "budget": 40}

    def evaluate(proposal: Proposal) -> Measurement:
        return done(0.9 if proposal.cell == good else 0.5)

    def share(trials: list[Trial]) -> float:
        return float(np.mean([str(trial.cell).count("sep7x7") / 6 for trial in trials[20:]]))

    assert share(drive(controller(**options), evaluate=evaluate)) < 0.2
    assert share(drive(controller(**options), stored={7: Proposal(good, 1)}, evaluate=evaluate)) > 0.3


@pytest.mark.parametrize(("policy", "rate"), [("lstm", 0.0035), ("table", 0.1)])
def test_it_proposes_better_cells_than_random_search(policy: str, rate: float) -> None:
    """The first of 180 are as good as random ones, the last fifty are better: by truth, not by luck."""
    learning = Controller(5, OPERATIONS, 180, 1, 0, policy=policy, rate=rate)
    values, drawn = (
        [true_accuracy(trial.cell) for trial in drive(strategy)]
        for strategy in (learning, Random(5, OPERATIONS, 180, 1, 0))
    )
    assert np.mean(values[:36]) == pytest.approx(np.mean(drawn), abs=0.01)
    assert np.mean(values[-50:]) > np.mean(drawn) + 0.01


def test_nothing_but_its_seed_has_a_say_and_torch_is_left_alone() -> None:
    before = torch.get_num_threads(), torch.get_rng_state()
    torch.manual_seed(3)
    state = torch.get_rng_state()
    with torch.no_grad():
        one = drive(controller(policy="lstm", budget=45))
    assert torch.equal(torch.get_rng_state(), state)
    torch.set_rng_state(before[1])
    assert torch.get_num_threads() == before[0]
    assert drive(controller(policy="lstm", budget=45)) == one
    other = drive(Controller(3, OPERATIONS, 45, 1, 1))
    assert other[0].cell != one[0].cell


def test_a_rate_that_breaks_the_policy_ends_the_search_in_words() -> None:
    with pytest.raises(StrategyError, match=r"policy is not finite after trial \d+: lower its rate"):
        drive(controller(rate=1e308), evaluate=measure)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"budget": 0}, "budget 0, allowed is 1 and more"),
        ({"lag": -1}, "lag -1, allowed is 0 and more"),
        ({"batch": 0}, "batch 0, allowed is 1 and more"),
        ({"rate": -0.5}, "rate -0.5, allowed is 0 and more"),
        ({"rate": float("nan")}, "rate nan, allowed"),
        ({"policy": "tree"}, "policy 'tree', allowed are lstm table"),
        ({"algorithm": "sarsa"}, "algorithm 'sarsa', allowed are ppo reinforce"),
    ],
)
def test_arguments_that_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(StrategyError, match=message):
        controller(**options)


def test_little_or_late_learning_is_worth_a_note() -> None:
    assert notes_on_controller(184, 16, 20) == []
    assert notes_on_controller(72, 16, 20) == []
    assert "36 of 71 children" in notes_on_controller(71, 16, 20)[0]
    assert "10 of 10 children" in notes_on_controller(10, 16, 20)[0]
    (late,) = notes_on_controller(1_000, 21, 20)
    assert "lag of 21 is more than a batch of 20" in late
