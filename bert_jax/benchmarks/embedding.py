"""Benchmark text embeddings in float32, in texts per second, against sentence-transformers on the same machine.

All programs map the same texts of the Python documentation to the mean vectors of a BERT with the same random weights; the
time includes the tokenization. Half of the texts are first lines, and the longest are cut at 128 tokens. Both libraries sort
the texts by length. Called by `comparison.compare`.
"""

import itertools
import json
import pathlib
import tempfile
from collections.abc import Callable, Sequence
from typing import Any

from bert_jax.benchmarks import pytorch
from bert_jax.benchmarks.timing import runs_per_second
from bert_jax.modeling.bert import SIZES

__all__ = ['LIBRARY', 'RATE', 'SIZES', 'time_bert_jax', 'time_transformers', 'time_tuned_pytorch']

RATE = 'texts_per_second'
LIBRARY = 'sentence-transformers'
TEXTS, BATCH, LENGTH, VOCAB = 2048, 64, 128, 8192


def make_texts() -> list[str]:
    """Return the documentation of some items, every other one only by its first line."""
    from bert_jax.data.pydocs import source

    items = (item for module in source.installed_corpus() for item in module.items)
    docs = [item.doc for item in itertools.islice(items, 0, 20 * TEXTS, 20)]
    return [doc if i % 2 else doc.partition('\n')[0] for i, doc in enumerate(docs)]


def write_model(folder: pathlib.Path, size: str, texts: Sequence[str]) -> None:
    """Write a checkpoint of the task `embed` with random weights and the word pieces of these texts."""
    import jax

    from bert_jax.data import tokenizer_training
    from bert_jax.modeling import module
    from bert_jax.train import checkpoint, experiment

    sections = {
        'task': {'name': 'embed'},
        'model': {'name': 'bert', 'size': size},
        'data': {'texts': ('text',), 'length': LENGTH},
        'tokenizer': {'vocab_size': VOCAB},
    }
    config = experiment.from_config(sections)
    tokenizer = tokenizer_training.train(texts, config.tokenizer)
    config = experiment.complete(config, tokenizer)
    build = config.make_task(tokenizer).build_model
    params = module.init(lambda rngs: build(config.model, rngs), jax.random.key(0))
    about = {'config': config.as_dict(), 'tokenizer': json.loads(tokenizer.to_json())}
    checkpoint.write_params(folder, params, about)


def time_bert_jax(size: str, seconds: float) -> dict[str, float]:
    """Time `Embedder.encode` for about `seconds`."""
    from bert_jax.evals.embedder import Embedder

    texts = make_texts()
    with tempfile.TemporaryDirectory() as folder:
        write_model(pathlib.Path(folder), size, texts)
        embedder = Embedder(folder)
    return {RATE: TEXTS * runs_per_second(lambda _: embedder.encode(texts, batch_size=BATCH), seconds)}


def time_transformers(size: str, seconds: float) -> dict[str, float]:
    """Time `SentenceTransformer.encode` for about `seconds`."""
    texts = make_texts()
    return {RATE: _texts_per_second(load_sentence_transformer(size, texts), texts, seconds)}


def time_tuned_pytorch(size: str, seconds: float) -> dict[str, float]:
    """Time the same with the better of three batch sizes, and with `torch.compile` where that is faster."""
    texts = make_texts()
    model = load_sentence_transformer(size, texts)
    best = max((BATCH // 2, BATCH, 2 * BATCH), key=lambda rows: _texts_per_second(model, texts, 0, rows))
    transformer = model[0].auto_model

    def measure(compile: Callable[..., Any]) -> float:
        model[0].auto_model = compile(transformer)
        return _texts_per_second(model, texts, seconds, best)

    found = pytorch.highest_rate(measure, dynamic=True)
    return {RATE: found['rate'], 'compiled': found['compiled']}


def load_sentence_transformer(size: str, texts: Sequence[str]) -> Any:
    """Load the model of `write_model` with sentence-transformers."""
    from sentence_transformers import SentenceTransformer

    from bert_jax.train import convert

    with tempfile.TemporaryDirectory() as folder:
        ours, theirs = pathlib.Path(folder, 'ours'), pathlib.Path(folder, 'theirs')
        write_model(ours, size, texts)
        convert.to_hf(ours, theirs)
        return SentenceTransformer(str(theirs), device='cpu')


def _texts_per_second(model: Any, texts: list[str], seconds: float, batch_size: int = BATCH) -> float:
    def encode(_: int) -> None:
        model.encode(texts, batch_size=batch_size, normalize_embeddings=True, show_progress_bar=False)

    return TEXTS * runs_per_second(encode, seconds)
