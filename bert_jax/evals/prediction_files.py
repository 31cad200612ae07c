"""Files of predictions: JSON lines, tables, and the formats of the GLUE server and of the SQuAD scripts."""

import itertools
import json
import logging
import os
import pathlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from bert_jax.core import paths
from bert_jax.core.errors import UserError
from bert_jax.data import files, formats, question_answering
from bert_jax.data.formats import Invalid
from bert_jax.data.labeled import LabeledConfig
from bert_jax.data.multiple_choice import ChoiceConfig
from bert_jax.data.question_answering import QuestionConfig
from bert_jax.data.records import Record

_SUFFIXES = ('.jsonl', '.csv', '.tsv')


def find_format(path: pathlib.Path, name: str | None, source: str) -> str:
    """Return the format in which to write `path`.

    Args:
      path: value of `--output`.
      name: value of `--format`; None takes the format from the suffix of `path`.
      source: value of `--input`.

    Raises:
      UserError: if the suffix is unknown, or `path` is also a file of the input.
    """
    suffix = path.suffix.lower()
    if name is None and suffix not in _SUFFIXES:
        raise UserError(
            f'--output={path} has an unknown format. Use {", ".join(_SUFFIXES)}, or set --format to glue or squad.'
        )
    inputs = files.find_files(source) if formats.is_path(source) else []
    if path.exists() and any(os.path.samefile(path, file) for file in inputs):
        raise UserError(f'--output={path} would overwrite --input. Choose another file.')
    return name or suffix[1:]


def check_task(name: str, task: Any) -> None:
    """Raise UserError if the format `name` cannot hold the predictions of a task."""
    if name == 'glue' and not isinstance(task.data, LabeledConfig | ChoiceConfig):
        needed = 'one label or value per text'
    elif name == 'squad' and not isinstance(task.data, QuestionConfig):
        needed = 'answers to questions'
    else:
        return
    raise UserError(
        f'--format={name} can only hold {needed}, not predictions of the task {task.config.name!r}. '
        f'Remove --format, and set --output to a {", ".join(_SUFFIXES)} file.'
    )


def write(
    path: pathlib.Path,
    name: str,
    records: Sequence[Record | Invalid],
    predictions: Sequence[Mapping[str, Any] | Invalid],
    task: Any,
    use_class_ids: bool = False,
) -> None:
    """Write predictions to a file.

    `jsonl`, `csv` and `tsv` have one row for each record: the fields of the record, then those of its prediction, or the
    field `error` if the record is invalid. If the record already has one of these fields, all of the prediction's fields
    end in `_2`. Tables have one column for the probability of each class, and leave out the n best answers.

    `glue` has an index and a label or value per line, and `squad` maps question ids to answers; invalid records are left
    out. The index is the field `idx` of a record, since TFDS shuffles its examples, or else its position.

    Args:
      path: file to write.
      name: name of the format.
      records: records from `read_records`.
      predictions: prediction for each record, or what is wrong with it.
      task: task of the model.
      use_class_ids: whether `glue` holds class ids instead of class names.

    Raises:
      UserError: if there are no predictions, or the field `idx` is not a whole number.
    """
    problems = [p.problem for p in predictions if isinstance(p, Invalid)]
    if len(problems) == len(predictions):
        raise UserError(f'No record is valid, so nothing was written. {problems[0]}')
    if name == 'squad':
        content = _to_squad(records, predictions, task)
    elif name == 'glue':
        labels = getattr(task.config, 'labels', None) if use_class_ids else None
        content = _to_glue(records, predictions, labels)
    else:
        content = _ROW_WRITERS[name](*_join(records, predictions, is_table=name != 'jsonl'))
    paths.write_atomic(path, content.encode('utf-8', 'replace'))  # JSON can hold unpaired surrogates


def _valid(records: Sequence[Any], predictions: Sequence[Any]) -> Iterator[tuple[int, Record, Any]]:
    """Yield the position of each valid record, the record and its prediction."""
    for i, (record, prediction) in enumerate(zip(records, predictions, strict=True)):
        if not isinstance(prediction, Invalid):
            yield i, record, prediction


def _to_squad(records: Sequence[Any], predictions: Sequence[Any], task: Any) -> str:
    answers: dict[str, str] = {}
    num_repeated = 0
    for i, record, prediction in _valid(records, predictions):
        question_id = question_answering.read_id(record, task.data, i)
        num_repeated += question_id in answers
        answers[question_id] = prediction['prediction']
    if num_repeated:
        logging.warning(
            '%d questions repeat the id of another. Only the last answer of each id is kept.', num_repeated
        )
    return json.dumps(answers, ensure_ascii=False)


def _to_glue(records: Sequence[Any], predictions: Sequence[Any], labels: Sequence[str] | None) -> str:
    lines = []
    for i, record, prediction in _valid(records, predictions):
        index, value = record.fields.get('idx', i), prediction['prediction']
        if not str(index).isdecimal():
            raise UserError(
                f'{record.location} has {index!r} in the field idx, which is not a whole number. '
                'Correct it, or remove --format.'
            )
        if isinstance(value, float):
            value = f'{value:.3f}'
        elif labels is not None:
            value = labels.index(value)
        lines.append((int(index), value))
    return 'index\tprediction\n' + ''.join(f'{index}\t{value}\n' for index, value in sorted(lines))


def _join(
    records: Sequence[Any], predictions: Sequence[Any], is_table: bool
) -> tuple[list[str], list[dict[str, Any]]]:
    """Return the names of all columns, and the fields of each record with those of its prediction."""
    inputs = [record.fields if isinstance(record, Record) else {} for record in records]
    outputs = [
        {'error': p.problem} if isinstance(p, Invalid) else _flatten(p) if is_table else p
        for p in predictions
    ]
    input_names = dict.fromkeys(name for fields in inputs for name in fields)
    names = sorted(dict.fromkeys(name for fields in outputs for name in fields), key='error'.__eq__)
    suffixes = itertools.chain([''], (f'_{i}' for i in itertools.count(2)))
    suffix = next(s for s in suffixes if input_names.keys().isdisjoint(name + s for name in names))
    if suffix:
        logging.warning('The input has a column of the output, so the new columns end in %s.', suffix)
    rows = [
        {**fields, **{name + suffix: value for name, value in output.items()}}
        for fields, output in zip(inputs, outputs, strict=True)
    ]
    return [*input_names, *(name + suffix for name in names)], rows


def _flatten(prediction: Mapping[str, Any]) -> dict[str, Any]:
    """Return the entries for a table: one for the probability of each class, none for the list of the n best answers."""
    rest = {name: value for name, value in prediction.items() if name not in ('probabilities', 'n_best')}
    probabilities = prediction.get('probabilities', {})
    by_class = probabilities if isinstance(probabilities, dict) else dict(enumerate(probabilities))
    return rest | {f'probability_{name}': value for name, value in by_class.items()}


def _to_json_lines(names: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> str:
    return ''.join(_to_json(row) + '\n' for row in rows)


def _to_csv(names: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> str:
    def quote(cell: str) -> str:  # csv.writer does not quote every line break
        return '"' + cell.replace('"', '""') + '"' if re.search(r'[",\r\n]|^\s|\s$', cell) else cell

    return _to_table(names, rows, ',', quote)


def _to_tsv(names: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> str:
    return _to_table(names, rows, '\t', lambda cell: re.sub(r'[\t\r\n]+', ' ', cell))


def _to_table(
    names: Sequence[str], rows: Sequence[Mapping[str, Any]], delimiter: str, escape: Callable[[str], str]
) -> str:
    lines = [names, *([_to_cell(row.get(name)) for name in names] for row in rows)]
    return ''.join(delimiter.join(map(escape, line)) + '\n' for line in lines)


def _to_cell(value: Any) -> str:
    if value is None:
        return ''
    text = _to_json(value)
    return json.loads(text) if text.startswith('"') else text


def _to_json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, default=_to_plain)


def _to_plain(value: Any) -> Any:
    """Convert a value of TFDS or Parquet, such as an array or a date, to one that JSON can hold."""
    if isinstance(value, np.floating):
        return float(str(value))  # 3.8 in float32 stays 3.8
    return value.tolist() if isinstance(value, np.generic | np.ndarray) else f'{value}'


_ROW_WRITERS = {'jsonl': _to_json_lines, 'csv': _to_csv, 'tsv': _to_tsv}
