"""Prints a sentence token by token as a model has it in another language: --checkpoint=DIR --source=en --target=de "A sentence"."""

import argparse

from bert_jax.core import cli


def main() -> int:
    parser = argparse.ArgumentParser(prog='python -m bert_jax.bin.mean_shift', description=__doc__)
    parser.add_argument(
        '--checkpoint', required=True, help='a --workdir that was pretrained on several languages'
    )
    parser.add_argument('--source', required=True, help='the language of the sentence')
    parser.add_argument('--target', required=True, help='the language to shift it to')
    parser.add_argument('--layer', type=int, help='where to shift, 0 is the embeddings; by default half-way')
    parser.add_argument('--alphas', default='0,1,2,3', help='by how many differences of the means')
    cli.add_texts(parser)
    parser.add_argument('sentences', nargs='+')
    flags = parser.parse_args()
    alphas = cli.numbers(flags.alphas, '--alphas')
    if flags.source == flags.target:
        parser.error('--source and --target are one language: name two')

    from bert_jax.core import runtime
    from bert_jax.studies import hidden_states, language_location

    runtime.prepare_process()
    reader = hidden_states.open_reader(
        flags.checkpoint, cli.texts(flags.text), flags.parallel, flags.split, flags.limit,
        (flags.source, flags.target), flags.layer or 0,
    )  # fmt: skip
    layer = reader.layers // 2 if flags.layer is None else flags.layer
    batches = [reader.one(flags.source, sentence) for sentence in flags.sentences]
    difference = language_location.means(reader, flags.target) - language_location.means(reader, flags.source)
    for batch in batches:
        words = language_location.shifted_words(reader, batch, difference, layer, alphas)
        head = [f'layer {layer}', *(f'α={alpha:g}' for alpha in alphas)]
        print(cli.table([head, *words]))
    return 0


if __name__ == '__main__':
    cli.run(main)
