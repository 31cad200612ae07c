"""Prediction with a fine-tuned model: read records, predict, and write the results to a file."""

import dataclasses
import functools
import json
import logging
import os
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from bert_jax.core import partitioning, paths
from bert_jax.core.errors import UserError
from bert_jax.data import files, formats
from bert_jax.data import records as records_lib
from bert_jax.data.records import Record
from bert_jax.evals.evaluator import Evaluator
from bert_jax.tasks import Downstream, Examples
from bert_jax.train import load

Prediction = dict[str, Any]


class Predictor:
    """Predict the label, tags, value, answer or target text of records with a fine-tuned model.

    Args:
      checkpoint: working directory of a fine-tuning run, or the folder of one of its checkpoints.
      overrides: `a.b=value` changes to the config of the checkpoint, such as `data.text=body`.

    Raises:
      UserError: if there is no checkpoint, or it was not fine-tuned on a downstream task.
    """

    def __init__(self, checkpoint: str, overrides: Sequence[str] = ()):
        self._partitioner = partitioning.make(partitioning.MeshConfig())
        self._trained = load.read(checkpoint, self._partitioner, overrides)
        self.task = self._trained.experiment.make_task(self._trained.tokenizer)
        if not isinstance(self.task, Downstream):
            raise UserError(
                f'{checkpoint!r} was trained on the task {self._trained.experiment.task.name!r}, which makes no '
                'predictions. Set --checkpoint to the --workdir of a fine-tuning run.'
            )

    def __call__(self, records: Sequence[Record | None]) -> list[Prediction | None]:
        """Return one prediction per record. It is None if the record is None or invalid; an invalid record is logged."""
        valid, examples = self._make_examples(records)
        if not valid:
            return [None] * len(records)
        config = dataclasses.replace(self._trained.experiment.train, eval_rows=0)
        evaluator = Evaluator(
            self.task, self._trained.graph, examples, self._partitioner, config, generate=True
        )
        predictions = dict(zip(valid, evaluator.predictions(self._trained.params), strict=True))
        return [predictions.get(i) for i in range(len(records))]

    def _make_examples(self, records: Sequence[Record | None]) -> tuple[Sequence[int], Examples]:
        """Make rows of the valid records, and log what is wrong with the others.

        Returns:
          The indices of the valid records, and their rows.
        """
        make = functools.partial(self.task.make_examples, with_labels=False)
        candidates = [(i, record) for i, record in enumerate(records) if record is not None]
        try:
            return [i for i, _ in candidates], make([record for _, record in candidates])
        except UserError:
            valid: list[tuple[int, Record]] = []
            for i, record in candidates:
                try:  # together with the first valid record, because all may need the same number of endings
                    make([*(r for _, r in valid[:1]), record])
                    valid.append((i, record))
                except UserError as e:
                    logging.warning('Skipped an invalid record: %s', e)
            return [i for i, _ in valid], make([r for _, r in valid]) if valid else Examples(())


def read_records(source: str, split: str) -> list[Record | None]:
    """Read the records of a file or glob, or of a split of a TFDS data set.

    Returns:
      The records in order. A record that cannot be read is logged and replaced by None.

    Raises:
      UserError: if the file does not exist, has an unknown format or holds no records.
    """
    if not formats.is_path(source):
        return [*records_lib.read(source, split)]
    if not (paths := files.find_files(source)):
        problem = 'is a folder' if files.is_folder(source) else 'does not exist'
        raise UserError(f'--input={source} {problem}. Set --input to an existing file.')
    records: list[Record | None] = []

    def skip(problem: str) -> None:
        logging.warning('Skipped an invalid record: %s', problem)
        records.append(None)

    for path in paths:
        for record in records_lib.read_file(path, skip):
            records.append(record)
    if not records:
        raise UserError(f'--input={source} has no records. Set --input to a file with records.')
    return records


def check_output(path: pathlib.Path, source: str) -> None:
    """Raise UserError if `path` has an unknown format or is the same file as the input `source`."""
    if path.suffix not in _WRITERS:
        raise UserError(f'--output={path} has an unknown format. Use one of {", ".join(_WRITERS)}.')
    if path.exists() and os.path.exists(source) and path.samefile(source):
        raise UserError(f'--output={path} would overwrite --input. Choose another file.')


def write_predictions(
    path: pathlib.Path,
    records: Sequence[Record | None],
    predictions: Sequence[Prediction | None],
    use_class_ids: bool,
) -> None:
    """Write predictions in the format given by the suffix of `path`.

    `.jsonl` has one object per record. `.json` maps question ids to answers, as the SQuAD scripts expect. `.tsv` has an
    index and a label or value per line, as the GLUE server expects. The index is the field `idx` of a record, since
    TFDS shuffles its examples. Without this field, it is the record's position.

    Args:
      path: file to write.
      records: records from `read_records`.
      predictions: prediction for each record; records with None are left out.
      use_class_ids: whether a `.tsv` file holds class ids instead of class names.

    Raises:
      UserError: if there are no predictions, or the format cannot hold them.
    """
    pairs = zip(records, predictions, strict=True)
    valid = [(i, record, p) for i, (record, p) in enumerate(pairs) if record is not None and p is not None]
    if not valid:
        raise UserError('There are no valid records, so nothing was written. Correct the errors above.')
    paths.write_atomic(path, _WRITERS[path.suffix](valid, use_class_ids))


_Indexed = Sequence[tuple[int, Record, Prediction]]


def _to_json_lines(predictions: _Indexed, use_class_ids: bool) -> str:
    return ''.join(
        json.dumps({'location': record.location.rstrip(','), **prediction}, ensure_ascii=False) + '\n'
        for _, record, prediction in predictions
    )


def _to_squad(predictions: _Indexed, use_class_ids: bool) -> str:
    if any('answer' not in prediction for _, _, prediction in predictions):
        raise UserError('A .json file can only hold answers to questions. Set --output to a .jsonl file.')
    answers = {prediction['id']: prediction['answer'] for _, _, prediction in predictions}
    if repeated := len(predictions) - len(answers):
        logging.warning(
            '%d questions repeat the id of another. Only the last answer of each id is kept.', repeated
        )
    return json.dumps(answers, ensure_ascii=False)


def _to_glue(predictions: _Indexed, use_class_ids: bool) -> str:
    lines = []
    for i, record, prediction in predictions:
        index = record.fields.get('idx', i)
        if not str(index).isdecimal():
            raise UserError(
                f'{record.location} has {index!r} in the field idx, which is not a whole number. '
                'Correct it, or set --output to a .jsonl file.'
            )
        if 'value' in prediction:
            lines.append((int(index), f'{prediction["value"]:.3f}'))
        elif 'label' in prediction:
            label = prediction['label']
            lines.append((int(index), str(prediction.get('class_id', label) if use_class_ids else label)))
        else:
            raise UserError(
                'A .tsv file can only hold one label or value per text. Set --output to a .jsonl file.'
            )
    return 'index\tprediction\n' + ''.join(f'{index}\t{value}\n' for index, value in sorted(lines))


_WRITERS: Mapping[str, Callable[[_Indexed, bool], str]] = {
    '.jsonl': _to_json_lines,
    '.tsv': _to_glue,
    '.json': _to_squad,
}
