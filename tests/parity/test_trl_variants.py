"""One optimiser step of a stock TRL trainer against one of ours, for every method whose loss TRL has.

Loss and gradient of all weights. The reference is not the start: at policy = reference any label smoothing gives ln 2,
and a hinge has one side. DPO and IPO per token, over whole runs and with LoRA, are in test_trl_golden.py.

Where both compute the same, they agree bit for bit. Elsewhere sums in float32 are in another order: then the loss
agrees to 1e-6, and the difference of the two gradients is shorter than 1e-6 of the gradient.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pytest
import torch
from marginbench.models.loading import load_model, load_tokenizer
from marginbench.models.manifest import read_manifest, write_manifest
from marginbench.study import Full, Optimisation
from marginbench.training.batches import training_order
from marginbench.training.reference import compute_reference
from trl import DPOConfig, DPOTrainer, KTOConfig, KTOTrainer
from trl.experimental.cpo import CPOConfig, CPOTrainer
from trl.experimental.orpo import ORPOConfig, ORPOTrainer
from trl_tools import Step, combined, own_step, random_tokens, stock_step, token_rows

pytestmark = pytest.mark.slow

PAIRS = 6
CHOSEN_RATIO = np.array([8.0, -3.0, 2.0, -8.0, 14.0, 1.0])
REJECTED_RATIO = np.array([-4.0, 5.0, 1.0, -2.0, 3.0, 6.0])
"""Log-ratios in nats: g = 12, -8, 1, -6, 11, -5, and both means are above 0, which KTO's reference points need."""


class Data(NamedTuple):
    """Pairs, their reference log-probabilities, the start, and a folder."""

    tokens: pd.DataFrame
    reference: pd.DataFrame
    manifest: Path
    folder: Path


def _reference(manifest: Path, tokens: pd.DataFrame) -> pd.DataFrame:
    """A reference under which the start has the log-ratios above."""
    start = read_manifest(manifest)
    table = compute_reference(
        load_model(start),
        tokens,
        max_length=32,
        precision="fp32",
        batch_size=PAIRS,
        model_hash=start.weights_hash,
        template_hash="plain",
        pad_id=load_tokenizer(start).pad_token_id,
    )
    table["ref_chosen_logp"] -= CHOSEN_RATIO
    table["ref_rejected_logp"] -= REJECTED_RATIO
    return table


@pytest.fixture(scope="module")
def data(toy_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Data:
    tokens = random_tokens(PAIRS)
    return Data(tokens, _reference(toy_model, tokens), toy_model, tmp_path_factory.mktemp("trl"))


def _of_lengths(data: Data, **lengths: tuple[int, int]) -> Data:
    """The same with other pairs."""
    tokens = random_tokens(PAIRS, **lengths)
    return data._replace(tokens=tokens, reference=_reference(data.manifest, tokens))


def _optimisation(micro: int) -> Optimisation:
    """One step on all pairs, all weights, nothing clipped."""
    return Optimisation(
        epochs=1, batch_size=PAIRS, micro_batch_size=micro, max_grad_norm=1e30, max_length=32, tuning=Full()
    )


def _own(data: Data, name: str, params: Mapping[str, Any], micro: int = PAIRS) -> Step:
    return own_step(
        name, params, data.manifest, data.tokens, data.reference, _optimisation(micro), data.folder / "ours"
    )


def _stock(data: Data, trainer: type, config: Callable, micro: int = PAIRS, **given: Any) -> Step:
    opt = _optimisation(micro)
    rows = token_rows(data.tokens)
    for row, reference in zip(rows, data.reference.itertuples(), strict=True):
        row["ref_chosen_logps"], row["ref_rejected_logps"] = reference.ref_chosen_logp, reference.ref_rejected_logp
        row.update(prompt="", chosen="", rejected="")  # texts, which the tokenisation of CPO and ORPO would read
    rows = [rows[i] for i in training_order(opt, range(PAIRS), "pairs", 0)]
    return stock_step(trainer, config, data.manifest, rows, opt, data.folder / "stock", **given)


def _dpo(data: Data, loss_type: list[str], micro: int = PAIRS, **given: Any) -> Step:
    return _stock(data, DPOTrainer, DPOConfig, micro, loss_type=loss_type, precompute_ref_log_probs=True, **given)


def _cpo(data: Data, loss_type: str, micro: int = PAIRS, **given: Any) -> Step:
    return _stock(data, CPOTrainer, CPOConfig, micro, loss_type=loss_type, remove_unused_columns=False, **given)


def _tokens_a_pair(data: Data) -> float:
    """Tokens of the chosen answers over pairs: what divides TRL's NLL, a mean over all tokens, and not the papers'."""
    return data.tokens["chosen_ids"].map(len).mean()


def _same(found: Step, expected: Step) -> None:
    assert found.loss == expected.loss
    assert found.gradient.keys() == expected.gradient.keys()
    for name, gradient in expected.gradient.items():
        assert torch.equal(found.gradient[name], gradient), name


def _close(found: Step, expected: Step) -> None:
    assert found.loss == pytest.approx(expected.loss, rel=1e-6)
    assert found.gradient.keys() == expected.gradient.keys()
    ours, theirs = (
        torch.cat([step.gradient[name].double().flatten() for name in expected.gradient]) for step in (found, expected)
    )
    assert (ours - theirs).norm() < 1e-6 * theirs.norm()


@pytest.mark.parametrize(
    ("method", "params", "loss_type", "given"),
    [
        ("slic_hf_norm", {}, "hinge", {"beta": 0.1}),
        ("slic_hf_norm", {"beta": 0.3}, "hinge", {"beta": 0.3}),
        # Stock `sigmoid` leaves label smoothing unread in this TRL: conservative DPO is not to be had from it.
        ("dpo", {}, "sigmoid", {"beta": 0.1, "label_smoothing": 0.1}),
    ],
)
def test_bits_of_the_dpo_trainer(data: Data, method: str, params: dict, loss_type: str, given: dict) -> None:
    _same(_own(data, method, params), _dpo(data, [loss_type], **given))


@pytest.mark.parametrize(
    ("method", "params", "loss_type", "given", "micro"),
    [
        ("robust_dpo", {}, "robust", {"beta": 0.1, "label_smoothing": 0.1}, PAIRS),
        ("robust_dpo", {"beta": 0.2, "label_smoothing": 0.3}, "robust", {"beta": 0.2, "label_smoothing": 0.3}, 2),
        # AOT sorts the log-ratios of a forward pass and smooths labels; with one pair there is nothing to sort, and
        # what is left is conservative DPO.
        ("cdpo", {}, "aot_unpaired", {"beta": 0.1, "label_smoothing": 0.1}, 1),
    ],
)
def test_smoothed_labels_of_the_dpo_trainer(
    data: Data, method: str, params: dict, loss_type: str, given: dict, micro: int
) -> None:
    """The loss has the same bits. The gradient has not: TRL scales the two terms by beta and -beta, we their sum."""
    own, stock = _own(data, method, params, micro), _dpo(data, [loss_type], micro, **given)
    assert own.loss == stock.loss
    _close(own, stock)


@pytest.mark.parametrize("weight", [1.0, 0.2])
def test_dpo_nll_is_sigmoid_and_sft_one_pair_at_a_time(data: Data, weight: float) -> None:
    """One pair a forward pass: its tokens are all tokens, and TRL's mean is the paper's, within the answer."""
    stock = _dpo(data, ["sigmoid", "sft"], 1, loss_weights=[1.0, weight], beta=0.1)
    _close(_own(data, "dpo_nll", {"sft_weight": weight}, 1), stock)


def test_dpo_nll_of_a_batch_differs_by_the_weight_of_long_answers(data: Data) -> None:
    """The paper divides by each answer's length, TRL by the tokens of the batch: summed SFT over tokens per pair."""
    stock = _dpo(data, ["sigmoid", "sft"], beta=0.1)
    dpo, sft = _own(data, "dpo", {}), _own(data, "sft", {"reduction": "sum"})
    _close(combined((1, dpo), (1 / _tokens_a_pair(data), sft)), stock)
    assert stock.loss != pytest.approx(_own(data, "dpo_nll", {}).loss, rel=1e-3)


def test_sft(data: Data) -> None:
    _close(_own(data, "sft", {}, 1), _dpo(data, ["sft"], 1))
    _close(_own(data, "sft", {"reduction": "sum"}), _dpo(data, ["sft"], loss_weights=[_tokens_a_pair(data)]))


@pytest.mark.parametrize("weight", [1.0, 0.5])
def test_cal_dpo_is_sigmoid_and_sppo_hard(data: Data, weight: float) -> None:
    """TRL has one beta for both losses; the paper's logarithm has none, so that TRL's must be 1 ..."""
    stock = _dpo(data, ["sigmoid", "sppo_hard"], loss_weights=[1.0, weight], beta=1.0)
    _close(_own(data, "cal_dpo", {"beta": 1.0, "calibration_weight": weight}), stock)


def test_cal_dpo_with_another_beta_is_two_stock_losses(data: Data) -> None:
    """... or the two come from two trainers."""
    stock = combined((1, _dpo(data, ["sigmoid"], beta=1.0)), (1, _dpo(data, ["sppo_hard"], beta=0.1)))
    _close(_own(data, "cal_dpo", {"beta": 0.1}), stock)


def test_summed_ipo_of_equal_lengths(data: Data) -> None:
    """TRL divides g by the length L. (g / L - 1 / (2 beta L))^2 is the paper's square over L^2: beta L, times L^2."""
    data, length = _of_lengths(data, answer=(7, 8)), 7
    stock = _dpo(data, ["ipo"], beta=0.1 * length)
    _close(_own(data, "ipo_sum", {"beta": 0.1}), combined((length**2, stock)))


@pytest.mark.parametrize(
    ("method", "params", "loss_type", "given"),
    [
        ("cpo", {}, "sigmoid", {"beta": 0.1}),
        ("slic_hf", {"sft_weight": 1.0}, "hinge", {"beta": 1.0}),
    ],
)
def test_summed_nll_of_the_cpo_trainer(data: Data, method: str, params: dict, loss_type: str, given: dict) -> None:
    """The papers sum the NLL over tokens, TRL takes the mean over the batch's: `cpo_alpha` is its tokens per pair."""
    _close(_own(data, method, params), _cpo(data, loss_type, cpo_alpha=_tokens_a_pair(data), **given))


@pytest.mark.parametrize(
    ("method", "params", "loss_type", "given"),
    [
        ("cpo_released", {}, "sigmoid", {"beta": 0.1, "cpo_alpha": 1.0}),
        (
            "cpo",
            {"beta": 0.02, "label_smoothing": 0.1, "sft_weight": 0.0},
            "sigmoid",
            {"beta": 0.02, "label_smoothing": 0.1, "cpo_alpha": 0.0},
        ),
        ("simpo", {}, "simpo", {"beta": 2.0, "simpo_gamma": 1.0, "cpo_alpha": 0.0}),
        (
            "simpo",
            {"beta": 2.5, "gamma": 1.5, "label_smoothing": 0.1},
            "simpo",
            {"beta": 2.5, "simpo_gamma": 1.5, "label_smoothing": 0.1, "cpo_alpha": 0.0},
        ),
        (
            "slic_hf",
            {"sft_reduction": "mean", "sft_weight": 0.5},
            "hinge",
            {"beta": 1.0, "cpo_alpha": 0.5},
        ),
    ],
)
def test_cpo_trainer_one_pair_at_a_time(data: Data, method: str, params: dict, loss_type: str, given: dict) -> None:
    """One pair a forward pass, so that TRL's mean over all tokens is that over the answer's."""
    _close(_own(data, method, params, 1), _cpo(data, loss_type, 1, **given))


def _sure(data: Data, name: str) -> Data:
    """A start that is sure of itself, and answers that it is likely to give: of unlikely ones p and the odds agree."""
    model = load_model(data.manifest)
    model.model.norm.weight.data *= 4
    folder = data.folder / name
    model.save_pretrained(folder / "weights")
    load_tokenizer(data.manifest).save_pretrained(folder / "weights")
    manifest = write_manifest(folder / "manifest.json", folder / "weights", "model").path
    tokens = data.tokens.copy()
    for row in tokens.itertuples():
        prompt = torch.tensor([row.prompt_ids])
        likely = {"num_beams": 2, "num_return_sequences": 2, "max_new_tokens": 20, "pad_token_id": 0}
        answers = model.generate(prompt, attention_mask=torch.ones_like(prompt), do_sample=False, **likely)
        for side, answer in zip(("chosen_ids", "rejected_ids"), answers[:, prompt.shape[1] :].tolist(), strict=True):
            tokens.at[row.Index, side] = answer[: len(getattr(row, side))]
    return Data(tokens, _reference(manifest, tokens), manifest, folder)


def _orpo(data: Data) -> tuple[Step, Step, Step]:
    """Ours, ours without its odds ratio, and the stock trainer's, one pair a forward pass."""
    stock = _stock(data, ORPOTrainer, ORPOConfig, 1, beta=0.3, remove_unused_columns=False)
    own, answer = _own(data, "orpo", {"lam": 0.3}, 1), _own(data, "sft", {}, 1)
    assert answer.loss < np.log(2)  # on average, chosen answers have p > 1/2
    return own, answer, stock


def test_orpo(data: Data) -> None:
    """TRL takes the NLL over the prompt too, but for its first token: with prompts of one token it is the paper's."""
    own, _, stock = _orpo(_sure(_of_lengths(data, prompt=(1, 2)), "one_token"))
    _close(own, stock)


def test_orpo_with_prompts_differs_by_their_likelihood(data: Data) -> None:
    """The paper's NLL is the answer's. TRL's is that of a pair whose answer begins at the prompt's second token."""
    data = _sure(data, "prompts")
    whole = data.tokens.copy()
    for side in ("chosen_ids", "rejected_ids"):
        whole[side] = [prompt[1:] + answer for prompt, answer in zip(whole["prompt_ids"], whole[side], strict=True)]
    whole["prompt_ids"] = [prompt[:1] for prompt in whole["prompt_ids"]]
    both = _own(data._replace(tokens=whole, reference=_reference(data.manifest, whole)), "sft", {}, 1)
    own, answer, stock = _orpo(data)
    _close(combined((1, own), (1, both)), combined((1, stock), (1, answer)))
    assert own.loss != pytest.approx(stock.loss, rel=1e-3)


@pytest.mark.parametrize("params", [{}, {"beta": 0.3, "desirable_weight": 1.5, "undesirable_weight": 0.5}])
def test_kto(data: Data, params: dict) -> None:
    """TRL's reference point is that of a forward pass, over answers that the rows name.

    The chosen answers in one pass with the rejected ones as theirs, and the reverse in the next, make the points of the
    paired form; the two passes are one optimiser batch. Stock TRL takes answers of other prompts, the paper's later
    estimate.
    """
    sides = {"chosen": "rejected", "rejected": "chosen"}
    rows = [
        {
            "prompt_ids": pair["prompt_ids"],
            "completion_ids": pair[f"{side}_ids"],
            "KL_completion_ids": pair[f"{other}_ids"],
            "label": side == "chosen",
            "ref_logps": reference[f"ref_{side}_logp"],
            "ref_KL_logps": reference[f"ref_{other}_logp"],
        }
        for side, other in sides.items()
        for pair, reference in zip(token_rows(data.tokens), data.reference.to_dict("records"), strict=True)
    ]
    opt = _optimisation(PAIRS).model_copy(update={"batch_size": 2 * PAIRS})
    stock = stock_step(
        KTOTrainer,
        KTOConfig,
        data.manifest,
        rows,
        opt,
        data.folder / "stock",
        loss_type="kto",
        precompute_ref_log_probs=True,
        **{"beta": 0.1, **params},
    )
    _close(_own(data, "kto", params), stock)
