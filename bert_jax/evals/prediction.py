"""Prediction with a fine-tuned model: read records, predict, and compare the predictions with gold labels."""

import dataclasses
import functools
import logging
from collections.abc import Sequence
from typing import Any

from bert_jax import tasks
from bert_jax.core import partitioning
from bert_jax.core.errors import UserError
from bert_jax.data import files, formats, text_checks
from bert_jax.data import records as records_lib
from bert_jax.data.formats import Invalid
from bert_jax.data.records import Record
from bert_jax.evals.evaluator import Evaluator
from bert_jax.tasks import Downstream, Examples, Mistake, shorten
from bert_jax.train import load

Prediction = dict[str, Any]
_MAX_LOGGED = 5


class Predictor:
    """Predict the label, tags, value, answer or target text of records with a fine-tuned model.

    Args:
      checkpoint: working directory of a fine-tuning run, or the folder of one of its checkpoints.
      overrides: `a.b=value` changes to the config of the checkpoint, such as `data.text=body`.
      source: file or TFDS name of the records, whose metadata may name numbered gold labels.

    Attributes:
      task: the downstream task of the model.

    Raises:
      UserError: if there is no checkpoint, or it was not fine-tuned on a downstream task.
    """

    def __init__(self, checkpoint: str, overrides: Sequence[str] = (), source: str = ''):
        self._partitioner = partitioning.make(partitioning.MeshConfig())
        self._trained = load.read(checkpoint, self._partitioner, overrides)
        experiment = self._trained.experiment
        if not issubclass(tasks.get(experiment.task.name).Task, Downstream):
            raise UserError(
                f'{checkpoint!r} was trained on the task {experiment.task.name!r}, which makes no '
                'predictions. Set --checkpoint to the --workdir of a fine-tuning run.'
            )
        data = dataclasses.replace(experiment.data, source=source)
        self.task: Any = dataclasses.replace(experiment, data=data).make_task(self._trained.tokenizer)

    def __call__(self, records: Sequence[Record | Invalid]) -> list[Prediction | Invalid]:
        """Predict all records, and log which are invalid or have an empty text, unless all are invalid.

        Returns:
          For each record a prediction with the keys of `Downstream.predictions`, or what is wrong with the record.
        """
        checked, examples = self._make_examples(records)
        invalid = [r for r in checked if isinstance(r, Invalid)]
        if len(invalid) == len(checked):
            return [*invalid]
        _log_first([r.problem for r in invalid], 'invalid records')
        empty = text_checks.find_empty([r for r in checked if isinstance(r, Record)], self.task.data)
        _log_first([r.location.rstrip(',') for r in empty], 'empty texts')
        config = dataclasses.replace(self._trained.experiment.train, eval_rows=0)
        evaluator = Evaluator(
            self.task, self._trained.graph, examples, self._partitioner, config, generate=True
        )
        predictions = iter(evaluator.predictions(self._trained.params))
        return [r if isinstance(r, Invalid) else next(predictions) for r in checked]

    def _make_examples(self, records: Sequence[Record | Invalid]) -> tuple[list[Record | Invalid], Examples]:
        """Return the records, with those that cannot be predicted replaced by what is wrong, and rows of the valid ones."""
        make = functools.partial(self.task.make_examples, with_labels=False)
        valid = [record for record in records if isinstance(record, Record)]
        try:
            return [*records], make(valid) if valid else Examples(())
        except UserError:
            checked: list[Record | Invalid] = []
            first: list[Record] = []
            for record in records:
                if isinstance(record, Record):
                    try:  # together with the first valid record, because all may need the same number of endings
                        make([*first, record])
                        first = first or [record]
                    except UserError as e:
                        record = Invalid(str(e))
                checked.append(record)
            valid = [record for record in checked if isinstance(record, Record)]
            return checked, make(valid) if valid else Examples(())

    def gold(self, records: Sequence[Record | Invalid]) -> list[Any]:
        """Return the gold label of each record, and None for records without a valid one.

        Raises:
          UserError: if no record has a valid label.
        """
        labels: list[Any] = []
        problems = []
        for record in records:
            labels.append(None)
            if isinstance(record, Record):
                try:
                    labels[-1] = self.task.gold(record)
                except UserError as e:
                    problems.append(str(e))
        if all(label is None for label in labels):
            raise UserError(
                f'--errors needs gold labels. {problems[0] if problems else "No record can be read."}'
            )
        _log_first(problems, 'records without a gold label')
        return labels

    def format_mistakes(
        self,
        records: Sequence[Record | Invalid],
        gold: Sequence[Any],
        predictions: Sequence[Prediction | Invalid],
        limit: int,
    ) -> str:
        """Format the worst mistakes, which are mostly the most confident ones; see `tasks.Mistake.severity`.

        Args:
          records: the predicted records.
          gold: what `gold` returned for them.
          predictions: prediction of each record.
          limit: maximum number of mistakes.

        Returns:
          A line with the number of mistakes, then two lines for each: location and labels, and the text.
        """
        compared = [
            (record, self.task.mistake(label, prediction))
            for record, label, prediction in zip(records, gold, predictions, strict=True)
            if isinstance(record, Record) and isinstance(prediction, dict) and label is not None
        ]
        mistakes: list[tuple[Record, Mistake]] = [(r, m) for r, m in compared if m is not None]
        mistakes.sort(key=lambda pair: -pair[1].severity)
        lines = [f'{len(mistakes):,} of {len(compared):,} predictions differ from the gold label.']
        if len(mistakes) > limit:
            lines[0] += f' The {limit:,} worst:'
        for record, mistake in mistakes[:limit]:
            lines.append(f'{record.location.rstrip(",")}: {mistake.description}')
            lines.append(f'    {shorten(self._text(record))}')
        return '\n'.join(lines)

    def _text(self, record: Record) -> str:
        """Return the texts, words or question of a record on one line."""
        keys = ('text', 'text_pair', 'tokens', 'question')
        names = [name for key in keys if (name := getattr(self.task.data, key, ''))]
        values = [record.get(name) for name in names]
        return ' | '.join(value if isinstance(value, str) else ' '.join(value) for value in values)


def _log_first(lines: Sequence[str], noun: str) -> None:
    """Log the number of problems, and the first few of them."""
    if lines:
        more = [f'and {len(lines) - _MAX_LOGGED:,} more'] if len(lines) > _MAX_LOGGED else []
        logging.warning('\n  '.join([f'{noun}: {len(lines):,}', *lines[:_MAX_LOGGED], *more]))


def read_records(source: str, split: str) -> list[Record | Invalid]:
    """Read the records of a file or glob, or of a split of a TFDS data set.

    Returns:
      The records in order, or what is wrong with those that cannot be read.

    Raises:
      UserError: if the file does not exist, has an unknown format or holds no records.
    """
    if not formats.is_path(source):
        return [*records_lib.read(source, split)]
    if not (paths := files.find_files(source)):
        problem = 'is a folder' if files.is_folder(source) else 'does not exist'
        raise UserError(f'--input={source} {problem}. Set --input to an existing file.')
    records: list[Record | Invalid] = []
    for path in paths:
        for record in records_lib.read_file(path, lambda problem: records.append(Invalid(problem))):
            records.append(record)
    if not records:
        raise UserError(f'--input={source} has no records. Set --input to a file with records.')
    return records
