"""The contract of a method: every file in methods/ is held to it, with no test code of its own."""

import dataclasses
import math
from typing import Any

import numpy as np
import pytest
import torch
from marginbench.errors import UserError
from marginbench.methods.base import Case, PairBatch
from marginbench.methods.registry import Method, check_params, load_method, method_names
from pydantic import ValidationError

CASES = [(name, index) for name in method_names() for index in range(len(load_method(name).examples))]
N = 6


def _case(name: str, index: int) -> tuple[Method, Case]:
    case = load_method(name).examples[index]
    return load_method(name, case.params), case


def _batch(method: Method, margin: np.ndarray, gap: float = 0.0, seed: int = 0, **changes: Any) -> PairBatch:
    """A float64 batch of N pairs, policy = reference but for `gap` nats on the chosen answers."""
    draw = np.random.default_rng(seed)
    plan = method.plan(margin if method.needs.margins else None)
    chosen, rejected = draw.uniform(-80, -5, N), draw.uniform(-80, -5, N)
    values = {
        "chosen_logp": chosen + gap,
        "rejected_logp": rejected,
        "ref_chosen_logp": chosen,
        "ref_rejected_logp": rejected,
        "chosen_len": draw.integers(1, 30, N),
        "rejected_len": draw.integers(1, 30, N),
        "margin": margin,
        **changes,
    }
    tensors = {key: torch.tensor(value, dtype=torch.float64) for key, value in values.items()}
    for key in ("chosen_logp", "rejected_logp"):
        tensors[key].requires_grad_()
    columns = {key: torch.tensor(np.asarray(value), dtype=torch.float64) for key, value in plan.columns.items()}
    return PairBatch(**tensors, columns=columns, pair_ids=[f"pair{i}" for i in range(N)])


def _margins(seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).normal(0.5, 2.0, N)


def _take(batch: PairBatch, order: list[int]) -> PairBatch:
    changes = {
        item.name: getattr(batch, item.name)[order]
        for item in dataclasses.fields(batch)
        if isinstance(getattr(batch, item.name), torch.Tensor)
    }
    return dataclasses.replace(
        batch,
        **changes,
        columns={name: value[order] for name, value in batch.columns.items()},
        pair_ids=[batch.pair_ids[i] for i in order],
    )


class _Watched(PairBatch):
    """A batch that remembers which of its fields were read."""

    def __getattribute__(self, name: str) -> Any:
        read = object.__getattribute__(self, "__dict__").get("_read")
        if read is not None and name in PairBatch.__dataclass_fields__:
            read.add(name)
        return object.__getattribute__(self, name)


@pytest.mark.parametrize("name", method_names())
def test_describes_itself(name: str) -> None:
    method = load_method(name)
    schema = type(method.params).model_json_schema()
    assert schema["additionalProperties"] is False
    for field, info in schema.get("properties", {}).items():
        assert info.get("description"), f"{name}: parameter {field} has no description"
    assert len(method.doc.strip()) > 100
    assert method.examples, f"{name}: EXAMPLE is empty"


@pytest.mark.parametrize("name", method_names())
def test_parameters_are_checked_and_frozen(name: str) -> None:
    with pytest.raises(UserError, match="unknown parameter `no_such_key`"):
        check_params(name, {"no_such_key": 1})
    params = load_method(name).params
    for field in type(params).model_fields:
        with pytest.raises(ValidationError):
            setattr(params, field, getattr(params, field))
        if type(params).model_fields[field].annotation is float:
            with pytest.raises(UserError, match=f"`{field}` = nan"):
                check_params(name, {field: math.nan})


@pytest.mark.parametrize(("name", "index"), CASES)
def test_example_holds(name: str, index: int) -> None:
    method, case = _case(name, index)
    state = method.initial_state()
    for number, (raw, expected) in enumerate(zip(case.batches, case.losses, strict=True)):
        values = dict(raw)
        kept = values.pop("kept", None)
        margin = np.asarray(values["margin"], dtype=float) if "margin" in values else None
        columns = {key: torch.tensor(np.asarray(v, dtype=float)) for key, v in method.plan(margin).columns.items()}
        tensors = {key: torch.tensor(value, dtype=torch.float64) for key, value in values.items()}
        ids = [f"pair{i}" for i in range(len(expected))]
        found = method.loss(PairBatch(**tensors, columns=columns, pair_ids=ids, step=number + 1, kept=kept), state)
        state = found.state
        np.testing.assert_allclose(found.per_pair.numpy(), expected, rtol=1e-6, atol=1e-6)
        mean = np.mean(expected) if case.means is None else case.means[number]
        np.testing.assert_allclose(found.mean().item(), mean, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(("name", "index"), CASES)
def test_gradient_is_finite_and_points_the_right_way(name: str, index: int) -> None:
    method, _ = _case(name, index)
    for gap in (0.0, -300.0, 300.0):
        batch = _batch(method, _margins(), gap)
        loss = method.loss(batch, method.initial_state()).mean()
        leaves = (batch.chosen_logp, batch.rejected_logp)
        chosen, rejected = torch.autograd.grad(loss, leaves, allow_unused=True, materialize_grads=True)
        assert torch.isfinite(loss)
        assert torch.isfinite(chosen).all()
        assert torch.isfinite(rejected).all()
        if gap == 0.0:  # policy = reference: chosen answers must become likelier, rejected ones not
            assert (chosen <= 0).all()
            assert chosen.sum() < 0
            assert (rejected >= 0).all()


@pytest.mark.parametrize(("name", "index"), CASES)
def test_a_step_lowers_its_own_loss(name: str, index: int) -> None:
    method, _ = _case(name, index)
    batch = _batch(method, _margins())
    before = method.loss(batch, method.initial_state()).mean()
    leaves = (batch.chosen_logp, batch.rejected_logp)
    gradients = torch.autograd.grad(before, leaves, allow_unused=True, materialize_grads=True)
    moved = [leaf.detach() - 0.01 * gradient for leaf, gradient in zip(leaves, gradients, strict=True)]
    after = method.loss(
        dataclasses.replace(batch, chosen_logp=moved[0], rejected_logp=moved[1]), method.initial_state()
    )
    assert after.mean() < before


@pytest.mark.parametrize(("name", "index"), CASES)
def test_order_of_the_batch_changes_nothing(name: str, index: int) -> None:
    method, _ = _case(name, index)
    batch = _batch(method, _margins(), gap=0.7, chosen_logp=np.random.default_rng(9).uniform(-60, -9, N))
    order = [3, 0, 5, 1, 4, 2]
    plain, moved = method.loss(batch, method.initial_state()), method.loss(_take(batch, order), method.initial_state())
    torch.testing.assert_close(moved.per_pair, plain.per_pair[order], rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(moved.mean(), plain.mean(), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("name", "index"), CASES)
def test_declared_needs_are_the_used_needs(name: str, index: int) -> None:
    method, _ = _case(name, index)
    needs, margin = method.needs, _margins()
    plain = _batch(method, margin, chosen_logp=np.random.default_rng(9).uniform(-60, -9, N))
    watched = _Watched(**{item.name: getattr(plain, item.name) for item in dataclasses.fields(plain)})
    object.__setattr__(watched, "_read", set())
    found = method.loss(watched, method.initial_state())
    read = object.__getattribute__(watched, "_read")
    plan = method.plan(margin if needs.margins else None)
    assert needs.reference == bool(read & {"ref_chosen_logp", "ref_rejected_logp"})
    assert needs.lengths == bool(read & {"chosen_len", "rejected_len"})
    planned = bool(plan.columns) or plan.keep is not None or plan.order is not None
    assert needs.margins == ("margin" in read or planned)
    assert needs.order == (plan.order is not None)
    assert needs.draws == ("pair_ids" in read)
    assert needs.state == (found.state is not None)

    other = plain.chosen_logp.detach().clone()
    other[-1] += 3.0
    changed = method.loss(dataclasses.replace(plain, chosen_logp=other), method.initial_state()).per_pair
    assert needs.whole_batch == (not torch.equal(changed[:-1], found.per_pair[:-1]))


@pytest.mark.parametrize("beta", [0.01, 0.1, 5.0])
@pytest.mark.parametrize("label_smoothing", [0.0, 0.1])
def test_dpo_is_ln_2_where_policy_and_reference_agree(beta: float, label_smoothing: float) -> None:
    method = load_method("dpo", {"beta": beta, "label_smoothing": label_smoothing})
    losses = method.loss(_batch(method, _margins())).per_pair
    torch.testing.assert_close(losses, torch.full_like(losses, math.log(2)), rtol=0, atol=1e-12)
