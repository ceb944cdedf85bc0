"""lm-eval's Hugging Face model with a cheaper forward pass for log-likelihoods; the numbers are the same.

lm-eval runs context + answer once for every answer, pads each batch to its longest row, and normalises over the whole
vocabulary at every position. Here the answers to one question share a single pass over the question, many questions lie
in one row without padding, and the vocabulary is only touched at the answers' positions. An attention mask keeps
questions, and the answers to one question, from seeing each other; positions restart with every question.

A model that does not follow such a mask (sliding windows, recurrent layers, an attention kernel without custom masks)
is found out by comparing part of the first row with plain passes, and is then run by lm-eval's own code.
"""

import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from typing import Any, NamedTuple

import torch
from lm_eval.models.huggingface import HFLM

from marginbench.capability.shared import SharedRows
from marginbench.identity import content_id

Request = tuple[tuple[str, str] | None, list[int], list[int]]
Answer = tuple[float, bool]

ROW_TOKENS = 512
"""Tokens in a row: enough to keep the matrix products busy, while attention stays a small part of the work."""
AGREEMENT = 1e-3
"""Largest relative difference to a plain pass, in nats: rounding is far below it, a mask that is ignored far above."""


class Group(NamedTuple):
    """Requests with one context, by their number in the list of requests."""

    context: list[int]
    members: list[int]
    size: int


class Row(NamedTuple):
    """One packed row: what goes into the model and where each request's predictions are read from."""

    ids: torch.Tensor
    positions: torch.Tensor
    mask: torch.Tensor
    where: dict[int, list[int]]


def group_by_context(requests: Sequence[Request]) -> list[Group]:
    """Requests gathered by context, longest group first."""
    members: dict[tuple[int, ...], list[int]] = {}
    for number, (_, context, _) in enumerate(requests):
        members.setdefault(tuple(context), []).append(number)
    groups = [
        Group(list(context), numbers, len(context) + sum(len(requests[i][2]) - 1 for i in numbers))
        for context, numbers in members.items()
    ]
    return sorted(groups, key=lambda group: (-group.size, group.members[0]))


def fill_rows(groups: Sequence[Group], row_tokens: int, row_requests: int) -> Iterator[list[Group]]:
    """Groups in order, as many in a row as fit; a group that is too large by itself gets a row of its own."""
    row: list[Group] = []
    for group in groups:
        full = sum(g.size for g in row) + group.size > row_tokens
        if row and (full or sum(len(g.members) for g in row) + len(group.members) > row_requests):
            yield row
            row = []
        row.append(group)
    if row:
        yield row


def pack(groups: Sequence[Group], requests: Sequence[Request]) -> Row:
    """One row of groups. `mask` is boolean, shape (1, 1, L, L), True where a position may look.

    `where[i]` lists the positions whose predictions are request i's answer tokens: the last token of the context, then
    all answer tokens but the last.
    """
    ids: list[int] = []
    positions: list[int] = []
    owner: list[int] = []  # number of the group
    branch: list[int] = []  # -1 in a context, else the number of the request
    where = {}
    for number, group in enumerate(groups):
        n = len(group.context)
        ids += group.context
        positions += range(n)
        owner += [number] * n
        branch += [-1] * n
        last = len(ids) - 1
        for member in group.members:
            answer = requests[member][2][:-1]
            where[member] = [last, *range(len(ids), len(ids) + len(answer))]
            ids += answer
            positions += range(n, n + len(answer))
            owner += [number] * len(answer)
            branch += [member] * len(answer)
    who, part = torch.tensor(owner), torch.tensor(branch)
    causal = torch.ones(len(ids), len(ids), dtype=torch.bool).tril()
    mask = causal & (who[:, None] == who[None, :]) & ((part[None, :] == -1) | (part[:, None] == part[None, :]))
    return Row(torch.tensor([ids]), torch.tensor([positions]), mask[None, None], where)


class PackedLM(HFLM):
    """HFLM whose log-likelihood requests are packed. `packing` is None until the first call has decided."""

    def __init__(
        self,
        *args: Any,
        report: Callable[[int, int], None] | None = None,
        shared: SharedRows | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self.packing: bool | None = None
        self.shared = shared
        self._report = report
        self._keeps = "logits_to_keep" in inspect.signature(self.model.forward).parameters

    def _loglikelihood_tokens(
        self, requests: list[Request], disable_tqdm: bool = False, override_bs: int | None = None
    ) -> list[Answer]:
        """Log-probability of each continuation, and whether it is the greedy one, in the order of the requests."""
        requests = list(requests)
        too_long = any(len(context) + len(answer) > self.max_length for _, context, answer in requests)
        if self.packing is False or too_long or self.backend != "causal":
            return super()._loglikelihood_tokens(requests, disable_tqdm=disable_tqdm, override_bs=override_bs)
        answers: dict[int, Answer] = {}
        for groups in fill_rows(group_by_context(requests), ROW_TOKENS, int(self.batch_size)):
            found = self._run_row(pack(groups, requests), requests)
            if (
                self.packing is None
                and self.shared
                and not self.shared.keeping
                and not self._all_agree(groups, requests, found)
            ):
                self.shared = None
                found = self._run_row(pack(groups, requests), requests)
            if self.packing is None:
                self.packing = self._all_agree(groups, requests, found)
                if not self.packing:
                    return super()._loglikelihood_tokens(requests, disable_tqdm=disable_tqdm, override_bs=override_bs)
            answers.update(found)
            if self._report is not None:
                self._report(len(answers), len(requests))
        for number, (text, _, _) in enumerate(requests):
            if text is not None:
                self.cache_hook.add_partial("loglikelihood", text, answers[number])
        return [answers[number] for number in range(len(requests))]

    @torch.inference_mode()
    def _run_row(self, row: Row, requests: Sequence[Request]) -> dict[int, Answer]:
        wanted = sorted({position for positions in row.where.values() for position in positions})
        place = {position: i for i, position in enumerate(wanted)}
        dtype = self.model.dtype
        blocked = torch.zeros(row.mask.shape, dtype=dtype).masked_fill_(~row.mask, torch.finfo(dtype).min)
        inputs = {"input_ids": row.ids, "position_ids": row.positions, "attention_mask": blocked}
        inputs = {name: value.to(self.device) for name, value in inputs.items()}
        index = torch.tensor(wanted, device=self.device)
        key = content_id(row.ids.tolist(), row.positions.tolist(), row.where)
        with self.shared.run(self.model, key, inputs) if self.shared else nullcontext(inputs) as inputs:
            if self._keeps:
                logits = self.model(**inputs, use_cache=False, logits_to_keep=index).logits[0]
            else:
                logits = self.model(**inputs, use_cache=False).logits[0, index]
        logits = logits.float()
        total, greedy = logits.logsumexp(-1), logits.argmax(-1)
        answers = {}
        for number, positions in row.where.items():
            rows = torch.tensor([place[position] for position in positions], device=self.device)
            target = torch.tensor(requests[number][2], device=self.device)
            log_probs = logits[rows, target] - total[rows]
            answers[number] = (float(log_probs.double().sum()), bool((greedy[rows] == target).all()))
        return answers

    def _all_agree(self, groups: Sequence[Group], requests: Sequence[Request], found: dict[int, Answer]) -> bool:
        return all(self._agrees(requests[i], found[i]) for i in groups[-1].members)

    @torch.inference_mode()
    def _agrees(self, request: Request, answer: Answer) -> bool:
        _, context, target = request
        ids = torch.tensor([context + target[:-1]], device=self.device)
        logits = self.model(input_ids=ids, use_cache=False).logits[0, len(context) - 1 :].float().log_softmax(-1)
        plain = float(logits.gather(1, torch.tensor(target, device=self.device)[:, None]).double().sum())
        return abs(plain - answer[0]) <= AGREEMENT * max(1.0, abs(plain))
