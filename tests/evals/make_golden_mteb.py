"""Write golden_mteb.json, the scores of MTEB on the vectors of `golden_mteb`: pip install "mteb>=2", then

python -m tests.evals.make_golden_mteb
"""

import json
from typing import Any

import mteb
import numpy as np
from datasets import Dataset, DatasetDict
from mteb import TaskMetadata
from mteb.abstasks import AbsTaskClassification, AbsTaskRetrieval, AbsTaskSTS
from sklearn.linear_model import LogisticRegression

from bert_jax.evals import mteb_model
from tests.evals import golden_mteb

SCORES = ('ndcg_at_10', 'recall_at_100', 'mrr_at_10', 'map_at_100', 'precision_at_10')


def make_task(base: type, kind: str, main_score: str, dataset: Any, **settings: Any) -> Any:
    """Return a task of MTEB whose data are in memory."""
    metadata = TaskMetadata(
        name=f'Local{kind}',
        description='data in memory',
        dataset={'path': 'local', 'revision': '1'},
        type=kind,
        eval_langs=['eng-Latn'],
        main_score=main_score,
    )
    task = type(f'Local{kind}', (base,), {'metadata': metadata, **settings})()
    task.dataset, task.data_loaded = dataset, True
    return task


def make_retrieval(collection: Any) -> Any:
    """Return a retrieval task, or one of re-ranking if the collection has candidates."""
    columns = ({'id': [*texts], 'text': [*texts.values()]} for texts in collection[:2])
    queries, corpus = (Dataset.from_dict(column) for column in columns)
    ranked = {k: [*v] for k, v in collection.candidates.items()} or None
    judgments = {k: dict(v) for k, v in collection.judgments.items()}
    data = {'queries': queries, 'corpus': corpus, 'relevant_docs': judgments, 'top_ranked': ranked}
    kind = 'Reranking' if ranked else 'Retrieval'
    return make_task(AbsTaskRetrieval, kind, 'ndcg_at_10', {'default': {'test': data}})


def make_tasks() -> list[Any]:
    n = golden_mteb.PAIRS
    pairs = {'sentence1': [f'a{i}' for i in range(n)], 'sentence2': [f'b{i}' for i in range(n)]}
    sts = Dataset.from_dict(pairs | {'score': golden_mteb.make_similarities().tolist()})
    labels = golden_mteb.make_labels().tolist()
    classes = {
        split: Dataset.from_dict({'text': [f'{split}{i}' for i in range(60)], 'label': labels})
        for split in ('train', 'test')
    }
    all_of_train = {
        'samples_per_label': 60,
        'n_experiments': 1,
        'evaluator_model': LogisticRegression(max_iter=1000),
    }
    return [
        make_task(AbsTaskSTS, 'STS', 'cosine_spearman', DatasetDict(test=sts)),
        make_retrieval(golden_mteb.make_collection(False)),
        make_retrieval(golden_mteb.make_collection(True)),
        make_task(AbsTaskClassification, 'Classification', 'accuracy', DatasetDict(classes), **all_of_train),
    ]


def evaluate(model: Any, tasks: list[Any], names: tuple[str, ...]) -> dict[str, dict[str, float]]:
    """Return the scores of these names, by the kind of the task."""
    results = mteb.evaluate(model, tasks, cache=None, show_progress_bar=False)
    return {
        r.task_name.removeprefix('Local'): {k: v for k, v in r.scores['test'][0].items() if k in names}
        for r in results.task_results
    }


def main() -> None:
    model: Any = mteb_model.Encoder.__new__(mteb_model.Encoder)
    model.embedder, model.prompts = golden_mteb.Lookup(), {}
    model.mteb_model_meta = mteb_model.make_metadata(6, 16)
    scores = evaluate(model, make_tasks(), (*SCORES, 'pearson', 'spearman', 'accuracy'))
    for name in ('Retrieval', 'Reranking'):
        del scores[name]['accuracy']  # recall at 1
    document = {'mteb': mteb.__version__, 'numpy': np.__version__, 'scores': scores}
    golden_mteb.PATH.write_text(json.dumps(document, indent=1) + '\n')


if __name__ == '__main__':
    main()
