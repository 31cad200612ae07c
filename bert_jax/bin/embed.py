"""Write the vectors of texts to a folder, for search; to resume an interrupted run, run the same command again."""

import pathlib

from bert_jax.core import cli


def main() -> None:
    parser = cli.make_parser(
        'embed',
        __doc__,
        '--checkpoint=runs/embed --input=texts.jsonl --output=vectors',
        '--checkpoint=runs/embed --input=medquad --split=test --text=answer --output=vectors --prompt="passage: "',
    )
    cli.add_checkpoint_flag(parser, 'a run of the task embed, or another encoder')
    parser.add_argument(
        '--input', required=True, help='texts: TFDS name, or path of files such as texts.jsonl'
    )
    parser.add_argument('--split', default='test', help='split of the input')
    parser.add_argument('--text', default='text', help='field of the text')
    parser.add_argument(
        '--id', default='', help='field of the id of a text; by default texts are numbered from 0'
    )
    parser.add_argument(
        '--prompt', help='text that precedes each text, such as "passage: "; by default that of training'
    )
    parser.add_argument('--output', required=True, help='folder for vectors.npy [n, D] and texts.jsonl')
    flags = parser.parse_args()
    folder = pathlib.Path(flags.output)
    cli.check_writable(folder / 'vectors.npy', '--output')

    from bert_jax.core import runtime
    from bert_jax.evals import vector_files
    from bert_jax.evals.embedder import Embedder
    from bert_jax.train import checkpoint

    runtime.configure_process()
    texts = vector_files.read_texts(flags.input, flags.split, flags.text, flags.id)
    embedder = Embedder(flags.checkpoint)
    step, metadata = checkpoint.read_metadata(pathlib.Path(flags.checkpoint))
    about = {'checkpoint': checkpoint.content_hash(step, metadata)}
    prompt = embedder.passage_prompt if flags.prompt is None else flags.prompt
    count = vector_files.embed(embedder, texts, folder, about, prompt)
    print(f'{folder}: {len(texts):,} vectors of width {embedder.width}, {count:,} of them new')


if __name__ == '__main__':
    cli.run(main)
