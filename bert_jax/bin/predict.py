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
        help='file to write: .jsonl with one object per record, .tsv for the GLUE server or .json for the SQuAD scripts',
    )
    parser.add_argument(
        '--class_ids', action='store_true', help='write class ids instead of class names to a .tsv file'
    )
    parser.add_argument('--question', help='question to answer from the text in --context')
    parser.add_argument('--context', help='text file that holds the answer to --question')
    flags, overrides = cli.parse_args(parser)
    if bool(flags.input) != bool(flags.output) or bool(flags.question) != bool(flags.context):
        parser.error('--input and --output need each other, and so do --question and --context')
    if bool(flags.input) == bool(flags.question):
        parser.error('set either --input and --output, or --question and --context')

    from bert_jax.core import runtime
    from bert_jax.evals import prediction

    runtime.configure_process()
    if flags.output:
        cli.check_output(pathlib.Path(flags.output), '--output')
        prediction.check_output(pathlib.Path(flags.output), flags.input)
    # The input is read before the model, so that its errors are found at once.
    if flags.question:
        context = _read_context(flags.context)
        return _answer(prediction.Predictor(flags.checkpoint, overrides), flags, context)
    records = prediction.read_records(flags.input, flags.split)
    predictions = prediction.Predictor(flags.checkpoint, overrides)(records)
    prediction.write_predictions(pathlib.Path(flags.output), records, predictions, flags.class_ids)
    skipped = predictions.count(None)
    print(f'{flags.output}: {len(predictions) - skipped:,} predictions')
    if skipped:
        print(f'error: {skipped:,} invalid records were skipped.', file=sys.stderr)
    return 1 if skipped else 0


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
    for answer in (prediction or {}).get('n_best', [])[:5]:
        print(f'{answer["probability"]:7.1%}  {answer["text"] or "(no answer)"}')
    return 0 if prediction else 1


if __name__ == '__main__':
    cli.run(main)
