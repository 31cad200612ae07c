"""Causal and masked language modeling with one encoder: both losses, the split of a batch, evaluation and phases."""

import json
import math
import random

import jax
import numpy as np
import pytest

from bert_jax.core.errors import UserError
from bert_jax.data import rows as rows_lib
from bert_jax.data import tokenizer as tokenizer_lib
from bert_jax.data.pipeline import stack
from bert_jax.data.prepare import TextConfig
from bert_jax.evals import fill_mask, language_model, token_scores
from bert_jax.modeling import module
from bert_jax.tasks import hybrid
from bert_jax.train import load
from tests.conftest import sentences
from tests.modeling import tiny
from tests.runs import ROOT, pretrain
from tests.tasks.test_diffusion import make_bert

SETTINGS = (
    'task.name=hybrid',
    'task.sentence_objective=none',
    'task.pack_documents=true',
    'optim.learning_rate=0.01',
)


@pytest.fixture(scope='module')
def vocabulary():
    return tokenizer_lib.from_vocab([*tokenizer_lib.SPECIAL, *(f'w{i}' for i in range(95))])


def make_task(vocabulary, **settings):
    return hybrid.Task(hybrid.Config(**settings), TextConfig(), vocabulary)


@pytest.fixture(scope='module')
def model():
    return module.merge(*tiny.graph_and_params(make_bert, rope_base=10_000.0, norm_placement='pre'))


def make_batch(task, size=4):
    """Rows of two documents of 7 and 9 words, and padding."""
    t = task.tokenizer
    rng = np.random.default_rng(0)
    rows = []
    for _ in range(size):
        a, b = rng.integers(5, 100, 7), rng.integers(5, 100, 9)
        tokens = np.concatenate([[t.cls], a, [t.sep, t.cls], b, [t.sep]])
        rows.append(rows_lib.make_row(tokens, len(tokens), 0, 24, t))
    return stack([task.example(row, np.random.default_rng(i)) for i, row in enumerate(rows)])


def value(output, name):
    return float(output.losses[name].value())


def test_rows_are_split_between_the_objectives(vocabulary, model):
    task = make_task(vocabulary, causal_share=0.25)
    batch = make_batch(task, 8)
    output = task.loss(model, batch, None)
    causal, masked = [0, 4], [1, 2, 3, 5, 6, 7]
    only_causal, only_masked = make_task(vocabulary, causal_share=1), make_task(vocabulary, causal_share=0)
    for name, other, rows in (('lm_loss', only_causal, causal), ('mlm_loss', only_masked, masked)):
        part = other.loss(model, {k: x[rows] for k, x in batch.items()}, None)
        assert [*part.losses] == [name]
        assert value(output, name) == pytest.approx(value(part, name), rel=1e-5)
    both = task.for_evaluation().loss(model, batch, None)
    for name, other in (('lm_loss', only_causal), ('mlm_loss', only_masked)):
        assert value(both, name) == pytest.approx(value(other.loss(model, batch, None), name), rel=1e-5)
    with pytest.raises(UserError, match='Set train.batch_size to a multiple of 4'):
        task.loss(model, {k: x[:6] for k, x in batch.items()}, None)


def test_next_tokens_are_predicted_from_earlier_tokens_of_their_document(vocabulary, model):
    task = make_task(vocabulary, causal_share=1)
    batch = make_batch(task, 1)
    expected = []
    for start, stop in ((0, 9), (9, 20)):
        document = batch['original'][:, start:stop]
        logs = jax.nn.log_softmax(model(document, causal=True).logits[0])
        expected += [*-logs[np.arange(stop - start - 1), document[0, 1:]]]
    prefix = model(document[:, :4], causal=True).logits[0, -1]
    np.testing.assert_allclose(jax.nn.log_softmax(prefix), logs[3], atol=1e-4)
    assert value(task.loss(model, batch, None), 'lm_loss') == pytest.approx(np.mean(expected), rel=1e-4)


def test_masked_tokens_are_predicted_one_position_before(vocabulary, model):
    task = make_task(vocabulary, causal_share=0)
    batch = make_batch(task, 2)
    logs = jax.nn.log_softmax(model(batch['tokens'], None, batch['valid']).logits)
    expected = [
        -logs[row, position - 1, label]
        for row in range(2)
        for position, label, weight in zip(
            *(batch[k][row] for k in ('positions', 'labels', 'weights')), strict=True
        )
        if weight
    ]
    assert value(task.loss(model, batch, None), 'mlm_loss') == pytest.approx(np.mean(expected), rel=1e-4)


def test_settings_of_other_objectives_are_errors():
    for settings in ({'sentence_objective': 'random', 'pack_documents': False}, {'diffusion': True}):
        with pytest.raises(UserError, match="task.name='hybrid' needs"):
            hybrid.Config(**settings)


@pytest.fixture(scope='module')
def trained(tmp_path_factory, corpus):
    """Working directory of a run that is causal first, and masked in its second half."""
    folder = tmp_path_factory.mktemp('hybrid')
    phases = "train.phases=((30, 32, 16, 'task.causal_share=0.5'), (10, 32, 16, 'task.causal_share=0.0'))"
    assert pretrain(folder, corpus, folder / 'rows', *SETTINGS, phases) == 0
    return folder


def test_both_objectives_are_evaluated(trained, corpus):
    config = f'{ROOT}/configs/eval/lm.py'
    text = language_model.Scorer(f'{config}:text')(trained)['scores']
    masked = language_model.Scorer(f'{config}:masked')(trained)['scores']
    assert text['perplexity'] < 60, 'chance is 200'
    assert masked['masked_loss'] < math.log(200)
    assert load.read_masked(trained).mask_offset == 1
    lines = [json.loads(line) for line in (trained / 'metrics.jsonl').read_text().splitlines()]
    assert {'eval/mlm_loss', 'eval/lm_loss'} <= lines[-1].keys(), 'also in a phase without causal rows'


def test_minimal_pairs_are_scored_by_either_likelihood(trained, tmp_path):
    texts = sentences(random.Random(7), 6)
    with (tmp_path / 'x.jsonl').open('w') as file:
        for text in texts:
            file.write(
                json.dumps({'sentence_good': text, 'sentence_bad': text[::-1], 'linguistics_term': 'x'})
                + '\n'
            )
    totals = {}
    for name, cls in (('masked', token_scores.MaskedScorer), ('causal', token_scores.CausalScorer)):
        with pytest.MonkeyPatch.context() as patch:
            original = cls.log_likelihoods
            patch.setattr(
                cls, 'log_likelihoods', lambda self, x, f=original, n=name: totals.setdefault(n, f(self, x))
            )
            settings = (f'eval.source={tmp_path}/x.jsonl', f'eval.likelihood={name}')
            scores = language_model.Scorer(f'{ROOT}/configs/eval/lm.py:blimp', settings)(trained)['scores']
        assert scores['accuracy'] == np.mean(totals[name][::2] > totals[name][1::2])
    assert (totals['masked'] != totals['causal']).all()


def test_masks_are_filled_from_the_position_before(trained):
    loaded = load.read_masked(trained)
    model, tokenizer = module.merge(loaded.graph, loaded.params), loaded.tokenizer
    ((best, *_),) = fill_mask.MaskFiller(str(trained))('Every [MASK] carries')
    (ids,) = tokenizer.encode(['Every [MASK] carries'], parse_special=True)
    tokens = np.concatenate([tokenizer.prefix, ids, [tokenizer.sep]]).astype(np.int32)
    position = int(np.flatnonzero(tokens == tokenizer.mask)[0])
    logits = np.asarray(model(tokens[None]).logits[0, position - 1])
    assert best[0] == tokenizer.token(int(logits[: len(tokenizer)].argmax()))
