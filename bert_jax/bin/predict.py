"""Labels, tags or answers texts: --checkpoint=DIR --input=FILE.jsonl --output=FILE.jsonl, or --question with --context."""

import argparse
import pathlib
import sys

from bert_jax.core import cli


def main() -> int:
    parser = argparse.ArgumentParser(prog='python -m bert_jax.bin.predict', description=__doc__)
    parser.add_argument('--checkpoint', required=True, help='a fine-tuned --workdir, or one of its steps')
    parser.add_argument(
        '--input',
        help='.jsonl, .csv, .tsv, .conll, .conllu or .json (SQuAD), or a TFDS name; fields as in the config',
    )
    parser.add_argument('--split', default='test', help='of a TFDS data set')
    parser.add_argument(
        '--output', help='.jsonl, one object a text; .tsv for the GLUE server; .json for the scripts of SQuAD'
    )
    parser.add_argument('--numbers', action='store_true', help='numbers of classes in a .tsv, not names')
    parser.add_argument('--question', help='a question to answer from --context')
    parser.add_argument('--context', help='a text file')
    flags, overrides = cli.parse(parser)
    if bool(flags.input) != bool(flags.output) or bool(flags.question) != bool(flags.context):
        parser.error('--input goes with --output, and --question with --context')
    if bool(flags.input) == bool(flags.question):
        parser.error('give --input and --output, or --question and --context')

    from bert_jax.core import runtime
    from bert_jax.core.errors import UserError
    from bert_jax.data.records import Record
    from bert_jax.evals import prediction

    runtime.prepare_process()
    if flags.output:
        cli.check_output(pathlib.Path(flags.output), '--output')
        prediction.check_output(pathlib.Path(flags.output), flags.input)
    predictor = prediction.Predictor(flags.checkpoint, overrides)
    if flags.question:
        data = predictor.task.data
        if not hasattr(data, 'context'):
            raise UserError(
                f'{flags.checkpoint!r} answers no questions: give one that was fine-tuned on the task qa.'
            )
        try:
            context = pathlib.Path(flags.context).read_text(encoding='utf-8')
        except UnicodeDecodeError as e:
            raise UserError(f'{flags.context!r} is not UTF-8 text: convert it.') from e
        record = Record(flags.context, {data.question: flags.question, data.context: context})
        if not context.strip():
            raise UserError(f'There is no text in {flags.context!r} to answer from.')
        (answer,) = predictor([record])
        for best in (answer or {}).get('n_best', [])[:5]:
            print(f'{best["probability"]:7.1%}  {best["text"] or "(no answer)"}')
        return 0 if answer else 1
    found = prediction.read(flags.input, flags.split)
    made = predictor(found)
    prediction.write(pathlib.Path(flags.output), found, made, flags.numbers)
    bad = made.count(None)
    print(f'{flags.output}: {len(made) - bad:,} predictions')
    if bad:
        print(f'error: {bad:,} bad lines were left out.', file=sys.stderr)
    return 1 if bad else 0


if __name__ == '__main__':
    cli.run(main)
