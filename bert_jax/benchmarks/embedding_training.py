"""Benchmark contrastive training of text embeddings in float32, in texts per second, against sentence-transformers.

All programs train the mean vectors of the same BERT to find the documentation of an item by its first line, among those of 64
pairs: forward and backward pass and AdamW, without dropout, with texts of at most 64 tokens. bert_jax packs the texts of a
batch into rows; tuned PyTorch groups pairs of similar length, and pads first lines and documentation separately. Both
tokenize them once. sentence-transformers tokenizes random batches as it trains. Called by `comparison.compare`.
"""

import itertools
from typing import Any

from bert_jax.benchmarks import embedding, finetuning, pytorch
from bert_jax.benchmarks.timing import runs_per_second
from bert_jax.modeling.bert import SIZES

__all__ = ['LIBRARY', 'RATE', 'SIZES', 'time_bert_jax', 'time_transformers', 'time_tuned_pytorch']

RATE = 'texts_per_second'
LIBRARY = 'sentence-transformers'
PAIRS, BATCH, LENGTH = 2048, 64, 64


def make_pairs() -> list[tuple[str, str]]:
    """Return the first line and the rest of the documentation of some items."""
    from bert_jax.data.pydocs import source

    docs = (item.doc.partition('\n') for module in source.installed_corpus() for item in module.items)
    pairs = ((first, rest.strip()) for first, _, rest in docs if rest.strip())
    return [*itertools.islice(pairs, 0, 8 * PAIRS, 8)]


def time_bert_jax(size: str, seconds: float) -> dict[str, float]:
    """Time epochs of bert_jax for about `seconds`."""
    from bert_jax.data import tokenizer_training
    from bert_jax.data.pipeline import Batches
    from bert_jax.data.records import Record
    from bert_jax.data.tokenizer import TokenizerConfig
    from bert_jax.tasks import embed
    from bert_jax.train import packing
    from bert_jax.train.experiment import TrainConfig

    pairs = make_pairs()
    texts = [*itertools.chain(*pairs)]
    tokenizer = tokenizer_training.train(texts, TokenizerConfig(vocab_size=embedding.VOCAB))
    data = embed.TupleConfig(texts=('first', 'rest'), length=LENGTH)
    task = embed.Task(embed.Config(), data, tokenizer)
    records = [Record(f'pair {i}', dict(zip(data.texts, pair, strict=True))) for i, pair in enumerate(pairs)]
    rows = task.make_examples(records).rows
    batches = Batches(rows, task.example, BATCH, 0, packing=packing.make(task, rows, BATCH, 1, TrainConfig()))
    epochs = finetuning.epochs_per_second(task, size, batches, PAIRS // BATCH, seconds, len(tokenizer))
    return {RATE: 2 * PAIRS * epochs}


def time_transformers(size: str, seconds: float) -> dict[str, float]:
    """Time epochs of random batches, tokenized as sentence-transformers does, for about `seconds`."""
    return {RATE: _texts_per_second(size, seconds, lambda function: function, tuned=False)}


def time_tuned_pytorch(size: str, seconds: float) -> dict[str, float]:
    """Time epochs of tokenized batches of similar length, for about `seconds`."""
    best = pytorch.highest_rate(
        lambda compile: _texts_per_second(size, seconds, compile, tuned=True), dynamic=True
    )
    return {RATE: best['rate'], 'compiled': best['compiled']}


def _texts_per_second(size: str, seconds: float, compile: Any, tuned: bool) -> float:
    """Time sentence-transformers.

    Args:
      size: model size.
      seconds: approximate duration.
      compile: function applied to the encoder, or one that returns it unchanged.
      tuned: whether to use fused AdamW, and batches of similar length that are tokenized once.
    """
    import torch
    from sentence_transformers.sentence_transformer import losses

    pairs = make_pairs()
    model = embedding.load_sentence_transformer(size, [*itertools.chain(*pairs)]).eval()  # no dropout
    model.max_seq_length = LENGTH
    model[0].auto_model = compile(model[0].auto_model)
    loss_fn = losses.MultipleNegativesRankingLoss(model)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, weight_decay=0.01, fused=tuned)
    columns = [*map(list, zip(*pairs, strict=True))]
    encoded = [model.preprocess(texts) for texts in columns] if tuned else []
    lengths = [column['attention_mask'].sum(1) for column in encoded]

    def make_batch(indices: Any) -> list[dict[str, Any]]:
        if not tuned:
            return [model.preprocess([texts[i] for i in indices]) for texts in columns]
        return [
            {k: v[indices, : n[indices].max()] for k, v in column.items() if k != 'modality'}
            for column, n in zip(encoded, lengths, strict=True)
        ]

    def epoch(number: int) -> None:
        order = torch.randperm(PAIRS, generator=torch.Generator().manual_seed(number))
        if tuned:
            order = order[lengths[1][order].argsort(descending=True)]
        for indices in order.split(BATCH):
            pytorch.update(model, optimizer, loss_fn(make_batch(indices), torch.zeros(BATCH)))

    return 2 * PAIRS * runs_per_second(epoch, seconds)
