"""A fine-tuned checkpoint on texts of one's own."""

import json
import logging
import os
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from bert_jax.core import partitioning, paths
from bert_jax.core.errors import UserError
from bert_jax.data import records
from bert_jax.data.records import Record
from bert_jax.evals.evaluator import Evaluator
from bert_jax.tasks import Downstream, Examples
from bert_jax.train import load

Prediction = dict[str, Any]


class Predictor:
    """Labels, tags, scores or answers records.

    Args:
      checkpoint: a fine-tuned working directory, or one of its steps.
      overrides: `a.b=value` for the config of the checkpoint, such as `data.text=body`.

    Raises:
      UserError: if there is no checkpoint, or it is of no downstream task.
    """

    def __init__(self, checkpoint: str, overrides: Sequence[str] = ()):
        self._partitioner = partitioning.make(partitioning.MeshConfig())
        self._trained = load.read(checkpoint, self._partitioner, overrides)
        self.task = self._trained.experiment.make_task(self._trained.tokenizer)
        if not isinstance(self.task, Downstream):
            raise UserError(
                f'{checkpoint!r} was trained on the task {self._trained.experiment.task.name!r}, which predicts '
                'nothing of a text: give the --workdir of a fine-tuning.'
            )

    def __call__(self, found: Sequence[Record | None]) -> list[Prediction | None]:
        """Predictions, in order; None for None, and for a record that is bad, which is logged."""
        good, examples = self._examples(found)
        if not good:
            return [None] * len(found)
        train = self._trained.experiment.train
        evaluator = Evaluator(
            self.task,
            self._trained.graph,
            examples,
            train.eval_batch_size,
            self._partitioner,
            bins=train.bins,
            write=True,
        )
        made = dict(zip(good, evaluator.predictions(self._trained.params), strict=True))
        return [made.get(i) for i in range(len(found))]

    def _examples(self, found: Sequence[Record | None]) -> tuple[Sequence[int], Examples]:
        """Which records can be made into rows, and these rows; says what is wrong with the others."""
        given = [(i, record) for i, record in enumerate(found) if record is not None]
        try:
            return [i for i, _ in given], self.task.examples([record for _, record in given], labelled=False)
        except UserError:
            good: list[tuple[int, Record]] = []
            for i, record in given:
                try:  # beside the first, since rows may have to be alike
                    self.task.examples([*(r for _, r in good[:1]), record], labelled=False)
                    good.append((i, record))
                except UserError as e:
                    logging.warning('left out: %s', e)
            rows = self.task.examples([r for _, r in good], labelled=False) if good else Examples(())
            return [i for i, _ in good], rows


def read(source: str, split: str) -> list[Record | None]:
    """Records of a file, or of a split of a TFDS data set; one that cannot be read is logged.

    Returns:
      The records, each named by its line, with None in the place of one that cannot be read.

    Raises:
      UserError: if there is no such file, or nothing in it.
    """
    if not records.is_files(source):
        if pathlib.Path(source).is_file():
            raise UserError(f'{source!r} is of no known format: write one of {", ".join(records.FORMATS)}.')
        return [*records.read(source, split)]
    if not pathlib.Path(source).is_file():
        raise UserError(f'There is no file {source!r}: set --input.')
    found: list[Record | None] = []

    def refuse(problem: str) -> None:
        logging.warning('left out: %s', problem)
        found.append(None)

    for record in records.read_file(source, refuse):
        found.append(record)
    if not found:
        raise UserError(f'There is nothing in {source!r} to predict.')
    return found


def check_output(path: pathlib.Path, source: str) -> None:
    """Raises UserError if predictions cannot be written to `path`, or would overwrite what they are of."""
    if path.suffix not in _WRITERS:
        raise UserError(
            f'{str(path)!r} is of no known format: write one of {", ".join(_WRITERS)} as --output.'
        )
    if path.exists() and os.path.exists(source) and path.samefile(source):
        raise UserError(f'--output={path} would overwrite --input: choose another.')


def write(
    path: pathlib.Path, found: Sequence[Record | None], made: Sequence[Prediction | None], numbers: bool
) -> None:
    """Writes predictions as the suffix of `path` says; raises UserError if there is none.

    `.jsonl` has one object for each record; `.json` the answers by question, as the scripts of SQuAD read
    them; `.tsv` an index and a label, as the GLUE server does, whose `numbers` are those of the classes; the index
    is the field `idx` of a record, in whose order TFDS does not keep them, or else its place.
    """
    pairs = zip(found, made, strict=True)
    whole = [(i, record, m) for i, (record, m) in enumerate(pairs) if record is not None and m is not None]
    if not whole:
        raise UserError('Nothing could be predicted, and nothing was written: mend what is said above.')
    paths.write(path, _WRITERS[path.suffix](whole, numbers))


_Made = Sequence[tuple[int, Record, Prediction]]


def _json_lines(made: _Made, numbers: bool) -> str:
    return ''.join(
        json.dumps({'of': record.where.rstrip(','), **m}, ensure_ascii=False) + '\n' for _, record, m in made
    )


def _squad(made: _Made, numbers: bool) -> str:
    if any('answer' not in m for _, _, m in made):
        raise UserError('A .json file is for answers to questions: write a .jsonl file of these.')
    answers = {m['id']: m['answer'] for _, _, m in made}
    if len(answers) < len(made):
        logging.warning(
            '%d questions share an id with another: its last answer is kept', len(made) - len(answers)
        )
    return json.dumps(answers, ensure_ascii=False)


def _glue(made: _Made, numbers: bool) -> str:
    lines = []
    for i, record, m in made:
        index = record.fields.get('idx', i)
        if not str(index).isdecimal():
            raise UserError(
                f'{record.where} has the idx {index!r}, which is no number: mend it, or write .jsonl.'
            )
        if 'value' in m:
            lines.append((int(index), f'{m["value"]:.3f}'))
        elif 'label' in m:
            lines.append((int(index), str(m.get('number', m['label']) if numbers else m['label'])))
        else:
            raise UserError('A .tsv file is for one label or number a text: write a .jsonl file of these.')
    return 'index\tprediction\n' + ''.join(f'{index}\t{value}\n' for index, value in sorted(lines))


_WRITERS: Mapping[str, Callable[[_Made, bool], str]] = {
    '.jsonl': _json_lines,
    '.tsv': _glue,
    '.json': _squad,
}
