"""Judges of a study: known, alive, able to read its texts, and one at least for every benchmark."""

import datetime
from collections.abc import Mapping

from marginbench.dag.evaluation import judges_of, verdicts_of
from marginbench.errors import UserError, nearest
from marginbench.judging.spec import JudgeSpec, refuse_retired
from marginbench.study import ReviewsCorpus, Study


def check_judges(study: Study, where: str, judges: Mapping[str, JudgeSpec]) -> None:
    """Raises UserError with one line that names the key and how to mend it."""
    for judge in study.judges:
        _check_judge(study, f"{where}: judges", judge, judges)
    used = set()
    for bench, benchmark in study.benchmarks.named.items():
        at = f"{where}: benchmarks.{bench}.judges"
        for judge in benchmark.judges or []:
            _check_judge(study, at, judge, judges)
            if judges[judge].verdict not in verdicts_of(benchmark):
                raise UserError(
                    f"{at}: `{judge}` gives verdicts of kind {judges[judge].verdict}; {bench} needs "
                    f"{' or '.join(verdicts_of(benchmark))}"
                )
        found = judges_of(study, bench, judges)
        if not found:
            raise UserError(
                f"{at}: no judge of the study gives verdicts of kind {' or '.join(verdicts_of(benchmark))}; name one"
            )
        used |= set(found)
    idle = [judge for judge in study.judges if judge not in used]
    if idle:
        raise UserError(f"{where}: judges: `{idle[0]}` fits none of the study's benchmarks; remove it, or add one")


def _check_judge(study: Study, at: str, judge: str, judges: Mapping[str, JudgeSpec]) -> None:
    if judge not in judges:
        raise UserError(f"{at}: unknown judge `{judge}`; {nearest(judge, judges)}")
    refuse_retired(judges[judge], datetime.date.today())
    if "review_classifiers" in judges[judge].needs:
        for name, dataset in study.datasets.items():
            if not isinstance(study.corpora[dataset.corpus], ReviewsCorpus):
                raise UserError(
                    f"{at}: `{judge}` judges with a sentiment classifier, which the corpus of dataset "
                    f"`{name}` does not have; choose a judge that reads any text"
                )
