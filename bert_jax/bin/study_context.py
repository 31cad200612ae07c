"""How much of a word's vector is its sentence? --checkpoint=DIR --out=DIR [--word=kind --input=FILE.jsonl] [--control=DIR]."""

import argparse
import pathlib

from bert_jax.core import cli


def main() -> int:
    parser = argparse.ArgumentParser(prog='python -m bert_jax.bin.study_context', description=__doc__)
    parser.add_argument('--checkpoint', required=True, help='a --workdir that was pretrained')
    parser.add_argument('--out', required=True, type=pathlib.Path, help='a folder for table and figure')
    parser.add_argument('--word', default='', help='the word, in each line of --input')
    parser.add_argument('--input', help='a .jsonl file with "text" and "sense" in each line')
    parser.add_argument(
        '--control', help='another --workdir, such as of a pretraining with task.shuffle=true'
    )
    parser.add_argument('--source', default='', help='sentences to compare words in: a source of text; without, what '
                        'was held out in pretraining')  # fmt: skip
    parser.add_argument('--limit', type=int, default=1000, help='how many of these sentences')
    flags = parser.parse_args()
    if bool(flags.word) != bool(flags.input):
        parser.error('--word and --input go together')
    cli.check_writable(flags.out / 'context.json', '--out')

    from bert_jax.core import runtime
    from bert_jax.core.errors import UserError
    from bert_jax.data import records
    from bert_jax.reports import export
    from bert_jax.studies import context, hidden_states

    runtime.prepare_process()
    word, examples = context.WORD, context.EXAMPLE
    if flags.input:
        if not records.is_files(flags.input) or not pathlib.Path(flags.input).is_file():
            raise UserError(
                f'--input={flags.input} is no {", ".join(records.FORMATS)} file: name one that is there.'
            )
        read = records.read_file(flags.input)
        word, examples = flags.word, tuple((r.text('sense'), r.text('text')) for r in read)
        if not examples:
            raise UserError(
                f'--input={flags.input} has no examples: write {{"sense": ..., "text": ...}} on each line.'
            )
    texts = {'text': flags.source} if flags.source else {}

    def study(checkpoint: str) -> tuple:
        reader = hidden_states.open_reader(checkpoint, texts, limit=flags.limit)
        return reader.sentences, *context.study(reader, word, examples)

    sentences, found, vectors = study(flags.checkpoint)
    control = study(flags.control)[1] if flags.control else None
    lines = context.lines(found)
    text = (
        f'# How much of a word is its sentence? {flags.checkpoint}\n\n“{word}” in {len(examples)} sentences; '
        f'self-similarity of the {found["words"]:,} words that occur five times or more in {sentences:,} others.\n\n'
        f'{export.markdown(lines)}'
    )
    if control:
        text += f'\nControl, {flags.control}:\n\n' + export.markdown(context.lines(control))
    figure = context.figure(found, vectors.vectors, control)
    export.write(flags.out, 'context', text, lines, figure, {**found, 'control': control})
    print(text, end='')
    return 0


if __name__ == '__main__':
    cli.run(main)
