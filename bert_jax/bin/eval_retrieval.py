"""Score text embeddings on a test collection: how well do queries find their passages?

All passages are ranked, or the candidates of each query, if the collection lists some. With --reranker, a cross-encoder
ranks the best of them again, and the scores of both rankings are reported.
"""

import json

from bert_jax.core import cli, paths


def main() -> None:
    parser = cli.make_parser(
        'eval_retrieval',
        __doc__,
        '--checkpoint=runs/embed --source=beir/cranfield --out=runs/embed/cranfield.json',
        '--checkpoint=runs/embed --source=mine/collection --out=runs/embed/mine.json --query_prompt="query: " '
        '--reranker=runs/cross --rerank=50',
    )
    cli.add_checkpoint_flag(parser, 'a run of the task embed, or another encoder')
    parser.add_argument(
        '--source',
        required=True,
        help='TFDS data set with the features of beir, or a folder in the format of BEIR, with corpus.jsonl, queries.jsonl and '
        'qrels/SPLIT.tsv, and perhaps candidates in top_ranked/SPLIT.jsonl',
    )
    parser.add_argument('--split', default='test', help='split of the judgments and candidates')
    parser.add_argument('--out', required=True, help='JSON file for the scores')
    parser.add_argument('--query_prompt', help='text that precedes each query; by default that of training')
    parser.add_argument(
        '--passage_prompt', help='text that precedes each passage; by default that of training'
    )
    parser.add_argument(
        '--pooling',
        choices=('mean', 'cls', 'max', 'last', 'weighted', 'tokens'),
        help='vector of a text, or vectors of all its tokens; by default that of training, and mean for other tasks',
    )
    parser.add_argument(
        '--length', type=int, default=0, help='maximum number of tokens of a text; 0 takes that of training'
    )
    parser.add_argument(
        '--reranker', default='', help='run of the task classify or regress on pairs of a query and a passage'
    )
    parser.add_argument(
        '--reranker_label', default='', help='class of relevant passages; by default, the second of two'
    )
    parser.add_argument(
        '--rerank', type=int, default=100, help='number of passages of each query that --reranker ranks again'
    )
    flags = parser.parse_args()
    cli.check_minimum(parser, flags, 'length', 0)
    cli.check_minimum(parser, flags, 'rerank', 1)
    if flags.reranker_label and not flags.reranker:
        parser.error('--reranker_label needs --reranker.')
    out = paths.make_path(flags.out)
    cli.check_output(out, '--out')

    from bert_jax.core import runtime
    from bert_jax.evals import reranking, retrieval
    from bert_jax.evals.embedder import Embedder

    runtime.configure_process()
    collection = retrieval.read_collection(flags.source, flags.split)
    embedder = Embedder(flags.checkpoint, flags.pooling, flags.length)
    reranker = reranking.Reranker(flags.reranker, flags.reranker_label) if flags.reranker else None
    prompts = {
        'query_prompt': embedder.query_prompt if flags.query_prompt is None else flags.query_prompt,
        'passage_prompt': embedder.passage_prompt if flags.passage_prompt is None else flags.passage_prompt,
    }
    rankings = retrieval.rank(embedder, collection, **prompts)
    columns = {'scores': retrieval.measure(rankings, collection.judgments)}
    about = {k: vars(flags)[k] for k in ('checkpoint', 'source', 'split')} | prompts
    if reranker:
        rankings = reranking.rerank(reranker, collection, rankings, flags.rerank)
        columns['reranked'] = retrieval.measure(rankings, collection.judgments)
        about |= {'reranker': flags.reranker, 'rerank': flags.rerank}
    num_queries = len(retrieval.answerable(collection.judgments))
    sizes = {'queries': num_queries, 'passages': len(collection.passages)}
    paths.write_atomic(out, json.dumps({**about, **sizes, **columns}, indent=2) + '\n')
    passages = f'{sizes["passages"]:,} passages{", ranking candidates" if collection.candidates else ""}'
    print(f'{flags.checkpoint}, {flags.source}, {sizes["queries"]:,} queries, {passages}')
    width = max(map(len, columns['scores']))
    if reranker:
        print(f'{"":{width}}  search  reranked')
    for name in columns['scores']:
        print('  '.join([f'{name:>{width}}', *(f'{column[name]:.4f}' for column in columns.values())]))


if __name__ == '__main__':
    cli.run(main)
