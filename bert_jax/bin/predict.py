"""Predict labels, tags, values, answers or texts with a fine-tuned model."""

import argparse
import pathlib
import sys
from typing import Any

from bert_jax.core import cli


def main() -> int:
    parser = cli.make_parser(
        'predict',
        __doc__,
        '--checkpoint=runs/sst2 --input=reviews.csv --output=predictions.jsonl --config.data.text=review',
        '--checkpoint=runs/squad --question="Who wrote it?" --context=book.txt',
    )
    cli.add_checkpoint_flag(parser, 'a fine-tuning run')
    parser.add_argument(
        '--input',
        help='.jsonl, .json, .csv, .tsv, .parquet, .conll or .conllu file, or TFDS name; '
        'if its field names differ from those in training, set them with --config.data.KEY=NAME',
    )
    parser.add_argument('--split', default='test', help='split of a TFDS data set (default: %(default)s)')
    parser.add_argument(
        '--output',
        help='file to write: .jsonl, .csv or .tsv, with the fields of the input and the predictions',
    )
    parser.add_argument(
        '--format',
        choices=('jsonl', 'csv', 'tsv', 'glue', 'squad'),
        help='format of --output (default: its suffix); glue is that of the GLUE server, squad that of the SQuAD scripts',
    )
    parser.add_argument(
        '--class_ids', action='store_true', help='with --format=glue: write class ids instead of class names'
    )
    parser.add_argument(
        '--errors',
        type=int,
        default=0,
        metavar='N',
        help='print the N worst mistakes, the most confident ones first, if the input has gold labels',
    )
    parser.add_argument('--question', help='question to answer from the text in --context')
    parser.add_argument('--context', help='text file that holds the answer to --question')
    flags, overrides = cli.parse_args(parser)
    if bool(flags.input) != bool(flags.output) or bool(flags.question) != bool(flags.context):
        parser.error('--input and --output need each other, and so do --question and --context')
    if bool(flags.input) == bool(flags.question):
        parser.error('set either --input and --output, or --question and --context')
    if flags.question and (flags.errors or flags.format):
        parser.error('--errors and --format need --input and --output')
    cli.check_minimum(parser, flags, 'errors', 0)
    if flags.class_ids and flags.format != 'glue':
        parser.error('--class_ids needs --format=glue')

    from bert_jax.core import runtime
    from bert_jax.evals import prediction, prediction_files

    runtime.configure_process()
    # The input is read before the model, so that its errors are found at once.
    if flags.question:
        context = _read_context(flags.context)
        return _answer(prediction.Predictor(flags.checkpoint, overrides), flags, context)
    path = pathlib.Path(flags.output)
    cli.check_output(path, '--output')
    name = prediction_files.find_format(path, flags.format, flags.input)
    records = prediction.read_records(flags.input, flags.split)
    predictor = prediction.Predictor(flags.checkpoint, overrides, flags.input)
    prediction_files.check_task(name, predictor.task)
    gold = predictor.gold(records) if flags.errors else []
    predictions = predictor(records)
    prediction_files.write(path, name, records, predictions, predictor.task, flags.class_ids)
    num_valid = sum(isinstance(p, dict) for p in predictions)
    print(f'{flags.output}: {num_valid:,} predictions')
    if flags.errors:
        print(predictor.format_mistakes(records, gold, predictions, flags.errors))
    if num_valid == len(records):
        return 0
    fate = 'were left out' if name in ('glue', 'squad') else 'have an error instead of a prediction'
    num_invalid = len(records) - num_valid
    print(f'error: {num_invalid:,} of {len(records):,} records are invalid and {fate}.', file=sys.stderr)
    return 1


def _read_context(path: str) -> str:
    """Read the text in which a question is answered."""
    from bert_jax.core.errors import UserError

    try:
        context = pathlib.Path(path).read_text(encoding='utf-8')
    except UnicodeDecodeError as e:
        raise UserError(f'--context={path} is not UTF-8 text. Convert the file to UTF-8.') from e
    if not context.strip():
        raise UserError(f'--context={path} is empty. Set --context to a file with text.')
    return context


def _answer(predictor: Any, flags: argparse.Namespace, context: str) -> int:
    """Print the five best answers to one question with their probabilities; return the exit status."""
    from bert_jax.core.errors import UserError
    from bert_jax.data.records import Record

    data = predictor.task.data
    if not hasattr(data, 'context'):
        raise UserError(
            f'{flags.checkpoint!r} cannot answer questions. Set --checkpoint to a model fine-tuned on the task qa.'
        )
    fields = {data.question: flags.question, data.context: context}
    (prediction,) = predictor([Record(flags.context, fields)])
    if not isinstance(prediction, dict):
        raise UserError(prediction.problem)
    for answer in prediction['n_best'][:5]:
        print(f'{answer["probability"]:7.1%}  {answer["text"] or "(no answer)"}')
    return 0


if __name__ == '__main__':
    cli.run(main)
