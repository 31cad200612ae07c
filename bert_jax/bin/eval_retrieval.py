"""Score text embeddings on a test collection: how well do queries find their passages?"""

import json

from bert_jax.core import cli, paths


def main() -> None:
    parser = cli.make_parser(
        'eval_retrieval',
        __doc__,
        '--checkpoint=runs/embed --source=beir/cranfield --out=runs/embed/cranfield.json',
        '--checkpoint=runs/embed --source=mine/collection --out=runs/embed/mine.json --query_prompt="query: "',
    )
    cli.add_checkpoint_flag(parser, 'a run of the task embed, or another encoder')
    parser.add_argument(
        '--source',
        required=True,
        help='TFDS data set with the features of beir, or a folder in the format of BEIR, with corpus.jsonl, queries.jsonl and '
        'qrels/SPLIT.tsv',
    )
    parser.add_argument('--split', default='test', help='split of the judgments')
    parser.add_argument('--out', required=True, help='JSON file for the scores')
    parser.add_argument('--query_prompt', default='', help='text that precedes each query')
    parser.add_argument('--passage_prompt', default='', help='text that precedes each passage')
    parser.add_argument(
        '--pooling',
        choices=('mean', 'cls', 'max', 'last', 'weighted'),
        help='vector of a text; by default that of training, and mean for other tasks',
    )
    parser.add_argument(
        '--length', type=int, default=0, help='maximum number of tokens of a text; 0 takes that of training'
    )
    flags = parser.parse_args()
    cli.check_minimum(parser, flags, 'length', 0)
    out = paths.make_path(flags.out)
    cli.check_output(out, '--out')

    from bert_jax.core import runtime
    from bert_jax.evals import retrieval
    from bert_jax.evals.embedder import Embedder

    runtime.configure_process()
    collection = retrieval.read_collection(flags.source, flags.split)
    embedder = Embedder(flags.checkpoint, flags.pooling, flags.length)
    scores = retrieval.score(embedder, collection, flags.query_prompt, flags.passage_prompt)
    about = {k: vars(flags)[k] for k in ('checkpoint', 'source', 'split', 'query_prompt', 'passage_prompt')}
    sizes = {'queries': len(collection.judgments), 'passages': len(collection.passages)}
    paths.write_atomic(out, json.dumps({**about, **sizes, 'scores': scores}, indent=2) + '\n')
    print(f'{flags.checkpoint}, {flags.source}, {sizes["queries"]:,} queries, {sizes["passages"]:,} passages')
    width = max(map(len, scores))
    print('\n'.join(f'{name:>{width}}  {value:.4f}' for name, value in scores.items()))


if __name__ == '__main__':
    cli.run(main)
