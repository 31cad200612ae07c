"""A fine-tuned checkpoint on texts of one's own."""

import json
import logging
import pathlib
from collections.abc import Sequence
from typing import Any

from bert_jax.core import partitioning
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

    def __call__(self, found: Sequence[Record]) -> list[Prediction | None]:
        """Predictions, in order; None for a record that is bad, which is logged."""
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
        )
        made = dict(zip(good, evaluator.predictions(self._trained.params), strict=True))
        return [made.get(i) for i in range(len(found))]

    def _examples(self, found: Sequence[Record]) -> tuple[Sequence[int], Examples]:
        """Which records can be made into rows, and these rows; says what is wrong with the others."""
        try:
            return range(len(found)), self.task.examples(found, labelled=False)
        except UserError:
            good = []
            for i, record in enumerate(found):
                try:
                    self.task.examples([record], labelled=False)
                    good.append(i)
                except UserError as e:
                    logging.warning('left out: %s', e)
            return good, self.task.examples([found[i] for i in good], labelled=False) if good else Examples(
                ()
            )


def read(source: str, split: str) -> tuple[list[Record], int]:
    """Records of a file, or of a split of a TFDS data set; a line that cannot be read is logged.

    Returns:
      The records, each named by its line, and how many lines were left out.
    """
    if not records.is_files(source):
        return records.read(source, split), 0
    if not pathlib.Path(source).is_file():
        raise UserError(f'There is no file {source!r}: set --input.')
    if not source.endswith('.jsonl'):
        return [Record(f'{source}, example {i},', f) for i, f in enumerate(records.read_file(source))], 0
    found, bad = [], 0
    for number, line in enumerate(pathlib.Path(source).read_bytes().splitlines(), 1):
        if not line.strip():
            continue
        where = f'{source}, line {number}'
        try:
            found.append(Record(f'{where},', records.parse(line.decode('utf-8-sig'), where)))
        except UnicodeDecodeError:
            logging.warning('left out: %s is not UTF-8 text.', where)
            bad += 1
        except UserError as e:
            logging.warning('left out: %s', e)
            bad += 1
    return found, bad


def write(
    path: pathlib.Path, found: Sequence[Record], made: Sequence[Prediction | None], numbers: bool
) -> None:
    """Writes predictions as the suffix of `path` says.

    `.jsonl` has one object for each record; `.json` the answers by question, as the scripts of SQuAD read
    them; `.tsv` an index and a label, as the GLUE server does, whose `numbers` are those of the classes; the index
    is the field `idx` of a record, in whose order TFDS does not keep them, or else its place.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    whole = [m for m in made if m is not None]
    if path.suffix == '.json':
        if any('answer' not in m for m in whole):
            raise UserError('A .json file is for answers to questions: write a .jsonl file of these.')
        path.write_text(
            json.dumps({m['id']: m['answer'] for m in whole}, ensure_ascii=False), encoding='utf-8'
        )
    elif path.suffix == '.tsv':
        lines = [
            (int(record.fields.get('idx', i)), _glue(m, numbers))
            for i, (record, m) in enumerate(zip(found, made, strict=True))
            if m is not None
        ]
        text = ''.join(f'{index}\t{prediction}\n' for index, prediction in sorted(lines))
        path.write_text(f'index\tprediction\n{text}', encoding='utf-8')
    else:
        with path.open('w', encoding='utf-8') as file:
            for record, m in zip(found, made, strict=True):
                if m is not None:
                    file.write(json.dumps({'of': record.where.rstrip(','), **m}, ensure_ascii=False) + '\n')


def _glue(prediction: Prediction, numbers: bool) -> str:
    if 'value' in prediction:
        return f'{prediction["value"]:.3f}'
    if 'label' not in prediction:
        raise UserError('A .tsv file is for one label or number a text: write a .jsonl file of these.')
    return str(prediction['number'] if numbers else prediction['label'])
