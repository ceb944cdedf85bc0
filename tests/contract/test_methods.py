"""The contract of a method: every file in methods/, and every variant, is held to it, with no test code of its own."""

import dataclasses
import json
import math
import typing
from typing import Any

import numpy as np
import pytest
import torch
from marginbench.errors import UserError
from marginbench.methods.base import PairBatch
from marginbench.methods.evaluate import evaluate
from marginbench.methods.pages import formula
from marginbench.methods.registry import Method, check_params, load_method, method_names, variant_names
from pydantic import ValidationError

EXAMPLES = [(name, index) for name in method_names() for index in range(len(load_method(name).examples))]
NAMES = [*method_names(), *variant_names()]
CASES = [*EXAMPLES, *((name, None) for name in NAMES)]
N = 6
ORDER = [3, 0, 5, 1, 4, 2]


def _method(name: str, index: int | None) -> Method:
    """A method with the parameters of one of its examples, or a method or variant as it is."""
    return load_method(name) if index is None else load_method(name, load_method(name).examples[index].params)


def _batch(method: Method, margin: np.ndarray, gap: float = 0.0, seed: int = 0, **changes: Any) -> PairBatch:
    """A float64 batch of N pairs, policy = reference but for a log-ratio margin of `gap` nats in every pair."""
    draw = np.random.default_rng(seed)
    plan = method.plan(margin if method.needs.margins else None)
    chosen, rejected = draw.uniform(-80, -5, N), draw.uniform(-80, -5, N)
    values = {
        "chosen_logp": chosen + min(gap, 0),  # never a probability above 1
        "rejected_logp": rejected - max(gap, 0),
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
    assert "arXiv" in method.doc.strip().splitlines()[0], f"{name}: the first line must name the paper"
    assert formula(method.doc), f"{name}: the docstring has no indented formula"
    assert method.examples, f"{name}: EXAMPLE is empty"
    assert all(case.losses for case in method.examples)


@pytest.mark.parametrize("name", NAMES)
def test_parameters_are_checked_and_frozen(name: str) -> None:
    with pytest.raises(UserError, match="unknown parameter `no_such_key`"):
        check_params(name, {"no_such_key": 1})
    params = load_method(name).params
    for field, info in type(params).model_fields.items():
        with pytest.raises(ValidationError):
            setattr(params, field, getattr(params, field))
        number = info.annotation is float or float in typing.get_args(info.annotation)
        if number and name in method_names():
            with pytest.raises(UserError, match=f"`{field}` = nan"):
                check_params(name, {field: math.nan})


@pytest.mark.parametrize(("name", "index"), CASES)
def test_parameters_survive_json(name: str, index: int | None) -> None:
    """A rule hands parameters to its script as JSON, all of them spelt out."""
    params = _method(name, index).params
    assert check_params(name, json.loads(json.dumps(params.model_dump(mode="json"), allow_nan=False))) == params


@pytest.mark.parametrize("name", variant_names())
def test_a_variant_has_its_parameters(name: str) -> None:
    method = load_method(name)
    assert method.variants[name], "a variant without parameters is another name for the method"
    for key, value in method.variants[name].items():
        assert getattr(method.params, key) == value


@pytest.mark.parametrize(("name", "index"), EXAMPLES)
def test_example_holds(name: str, index: int) -> None:
    method, case = _method(name, index), load_method(name).examples[index]
    for number, found in enumerate(evaluate(method, case.batches)):
        np.testing.assert_allclose(found["per_pair"], case.losses[number], rtol=1e-6, atol=1e-6)
        mean = np.mean(case.losses[number]) if case.means is None else case.means[number]
        np.testing.assert_allclose(found["loss"], mean, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(("name", "index"), EXAMPLES)
def test_example_holds_in_the_precision_of_training(name: str, index: int) -> None:
    method, case = _method(name, index), load_method(name).examples[index]
    exact, found = evaluate(method, case.batches), evaluate(method, case.batches, torch.float32)
    for one, other in zip(exact, found, strict=True):
        np.testing.assert_allclose(other["per_pair"], one["per_pair"], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("name", "index"), CASES)
def test_gradient_is_finite_and_points_the_right_way(name: str, index: int | None) -> None:
    method = _method(name, index)
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
def test_rounding_errors_do_not_decide(name: str, index: int | None) -> None:
    """At policy = reference log-ratios are rounding errors, which differ with the size of micro-batches."""
    method, gradients = _method(name, index), []
    for seed in (None, 0, 1):
        noise = np.zeros((2, N)) if seed is None else np.random.default_rng(seed).normal(0, 1e-5, (2, N))
        plain = _batch(method, _margins())
        leaves = [
            (values.detach() + torch.tensor(extra)).requires_grad_()
            for values, extra in zip((plain.chosen_logp, plain.rejected_logp), noise, strict=True)
        ]
        moved = dataclasses.replace(plain, chosen_logp=leaves[0], rejected_logp=leaves[1])
        loss = method.loss(moved, method.initial_state()).mean()
        gradients.append(torch.cat(torch.autograd.grad(loss, leaves, allow_unused=True, materialize_grads=True)))
    for gradient in gradients[1:]:
        torch.testing.assert_close(gradient, gradients[0], rtol=1e-2, atol=1e-4 * gradients[0].abs().max().item())


@pytest.mark.parametrize(("name", "index"), CASES)
def test_a_step_lowers_its_own_loss(name: str, index: int | None) -> None:
    method = _method(name, index)
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
def test_order_of_the_batch_changes_nothing(name: str, index: int | None) -> None:
    method = _method(name, index)
    batch = _batch(method, _margins(), gap=0.7, chosen_logp=np.random.default_rng(9).uniform(-60, -9, N))
    plain, moved = method.loss(batch, method.initial_state()), method.loss(_take(batch, ORDER), method.initial_state())
    torch.testing.assert_close(moved.per_pair, plain.per_pair[ORDER], rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(moved.mean(), plain.mean(), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("name", "index"), CASES)
def test_order_of_the_data_changes_no_plan(name: str, index: int | None) -> None:
    method, margin = _method(name, index), _margins()
    if not method.needs.margins:
        return
    plain, moved = method.plan(margin), method.plan(margin[ORDER])
    for column, values in plain.columns.items():
        np.testing.assert_array_equal(moved.columns[column], np.asarray(values)[ORDER])
    if plain.keep is not None:
        np.testing.assert_array_equal(moved.keep, plain.keep[ORDER])
    if plain.order is not None:
        np.testing.assert_array_equal(margin[ORDER][moved.order], margin[plain.order])


@pytest.mark.parametrize(("name", "index"), CASES)
def test_declared_needs_are_the_used_needs(name: str, index: int | None) -> None:
    method = _method(name, index)
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
    if needs.margins:
        with pytest.raises(ValueError, match="margins"):
            method.plan(None)

    dependent = False
    for key in ("chosen_logp", "rejected_logp"):
        for value in (-400.0, -1.0):
            other = getattr(plain, key).detach().clone()
            other[-1] = value
            changed = method.loss(dataclasses.replace(plain, **{key: other}), method.initial_state()).per_pair
            dependent |= not torch.equal(changed[:-1], found.per_pair[:-1])
    assert needs.whole_batch == dependent


@pytest.mark.parametrize("beta", [0.01, 0.1, 5.0])
@pytest.mark.parametrize("label_smoothing", [0.0, 0.1])
def test_dpo_is_ln_2_where_policy_and_reference_agree(beta: float, label_smoothing: float) -> None:
    method = load_method("dpo", {"beta": beta, "label_smoothing": label_smoothing})
    losses = method.loss(_batch(method, _margins())).per_pair
    torch.testing.assert_close(losses, torch.full_like(losses, math.log(2)), rtol=0, atol=1e-12)
