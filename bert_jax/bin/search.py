"""Find the texts that are the most similar to queries."""

import pathlib
import sys
from collections.abc import Iterable

from bert_jax.core import cli


def main() -> None:
    parser = cli.make_parser(
        'search',
        __doc__,
        '--checkpoint=runs/embed --vectors=vectors "What causes asthma?"',
        '--checkpoint=runs/embed --vectors=vectors --top=3 --prompt="query: " "asthma" "diabetes"',
    )
    cli.add_checkpoint_flag(parser, 'the model of the vectors')
    parser.add_argument('--vectors', required=True, help='the --output of bert_jax.bin.embed')
    parser.add_argument('--top', type=int, default=5, help='number of texts to print for each query')
    parser.add_argument(
        '--prompt', help='text that precedes each query, such as "query: "; by default that of training'
    )
    parser.add_argument(
        'queries', nargs='*', help='texts to search for; without them, one per line from the standard input'
    )
    flags = parser.parse_args()
    cli.check_minimum(parser, flags, 'top', 1)
    if flags.queries and not any(map(str.strip, flags.queries)):
        parser.error('all queries are empty')

    from bert_jax.core import runtime
    from bert_jax.evals import vector_files
    from bert_jax.evals.embedder import Embedder
    from bert_jax.train import checkpoint as checkpoint_lib

    runtime.configure_process()
    embedder = Embedder(flags.checkpoint)
    checkpoint = checkpoint_lib.content_hash(*checkpoint_lib.read_metadata(pathlib.Path(flags.checkpoint)))
    index = vector_files.Index(pathlib.Path(flags.vectors), embedder, checkpoint)
    prompt = embedder.query_prompt if flags.prompt is None else flags.prompt
    queries: Iterable[str] = flags.queries or sys.stdin
    for query in filter(None, map(str.strip, queries)):
        print(query)
        for result in index.search(query, flags.top, prompt):
            text = ' '.join(result.text.split())
            print(
                f'  {result.score:.3f}  {result.name}  {text[:100]}{"..." if len(text) > 100 else ""}',
                flush=True,
            )


if __name__ == '__main__':
    cli.run(main, stops_without_reader=True)
