"""Masked diffusion: the noise, the bound of the likelihood, and generation by replacing masks."""

import itertools
import json
import math

import jax
import numpy as np
import pytest

from bert_jax.core.errors import UserError
from bert_jax.data import rows as rows_lib
from bert_jax.data import tokenizer as tokenizer_lib
from bert_jax.data.pipeline import stack
from bert_jax.data.prepare import TextConfig
from bert_jax.evals import generation
from bert_jax.modeling import module, unmasking
from bert_jax.modeling.bert import BertForPretraining
from bert_jax.modeling.decoding import Sampling
from bert_jax.tasks import mlm
from bert_jax.train import load
from tests.modeling import tiny
from tests.runs import pretrain, run_in_process

WORDS = [10, 20, 30]
SETTINGS = dict(diffusion=True, sentence_objective='none')


@pytest.fixture(scope='module')
def task():
    vocabulary = tokenizer_lib.from_vocab([*tokenizer_lib.SPECIAL, *(f'w{i}' for i in range(95))])
    return mlm.Task(mlm.Config(**SETTINGS), TextConfig(), vocabulary)


def make_bert(config, rngs):
    return BertForPretraining(config, rngs, next_sentence=False)


@pytest.fixture(scope='module')
def graph_and_params():
    return tiny.graph_and_params(make_bert)


@pytest.fixture(scope='module')
def model(graph_and_params):
    return module.merge(*graph_and_params)


def pack(task, words, length):
    return rows_lib.pack(np.array(words), None, 0, length, task.tokenizer)


def test_noise_masks_each_token_with_a_rate_of_its_row(task):
    row = pack(task, range(10, 40), 40)
    batch = stack([task.example(row, np.random.default_rng(seed)) for seed in range(2000)])
    is_masked = batch['tokens'] == task.tokenizer.mask
    assert is_masked[:, 1:31].mean() == pytest.approx(0.5, abs=0.02)
    assert not is_masked[:, 0].any()
    assert not is_masked[:, 31:].any(), 'separator and padding'
    counts = is_masked.sum(1)
    np.testing.assert_array_equal((batch['weights'] > 0).sum(1), counts)
    rates = 1 / batch['weights'].max(1)[counts > 0]
    assert np.corrcoef(rates, counts[counts > 0])[0, 1] > 0.95
    assert np.quantile(rates, [0.25, 0.5, 0.75]) == pytest.approx([0.25, 0.5, 0.75], abs=0.05)
    for row_number in range(5):
        positions = batch['positions'][row_number][batch['weights'][row_number] > 0]
        np.testing.assert_array_equal(positions, np.flatnonzero(is_masked[row_number]))
        np.testing.assert_array_equal(batch['labels'][row_number][: len(positions)], positions + 9)


def cross_entropies(task, model):
    """Return the losses of the words by the set of masked words: {(0, 2): [loss of word 0, loss of word 2]}."""
    row = pack(task, WORDS, 5)[rows_lib.HEADER :].astype(np.int32)
    subsets = [s for n in (1, 2, 3) for s in itertools.combinations(range(3), n)]
    tokens = np.stack([row] * len(subsets))
    for masked, subset in zip(tokens, subsets, strict=True):
        masked[[1 + i for i in subset]] = task.tokenizer.mask
    logs = np.asarray(jax.nn.log_softmax(model(tokens).logits), np.float64)
    return {s: [-logs[i, 1 + j, WORDS[j]] for j in s] for i, s in enumerate(subsets)}


def test_loss_is_a_bound_of_the_likelihood(task, model):
    losses = cross_entropies(task, model)
    # The integral over the rate t of t^(m-1) (1-t)^(3-m), for each set of m masked words.
    weights = {s: math.gamma(len(s)) * math.gamma(4 - len(s)) / math.gamma(4) for s in losses}
    bound = sum(weights[s] * sum(losses[s]) for s in losses)
    # The model generates the words one by one, in a random order.
    likelihoods = []
    for order in itertools.permutations(range(3)):
        remaining, total = {0, 1, 2}, 0.0
        for word in order:
            key = tuple(sorted(remaining))
            total += losses[key][key.index(word)]
            remaining -= {word}
        likelihoods.append(math.exp(-total))
    exact = -math.log(np.mean(likelihoods))
    assert exact < bound < exact + 1
    row = pack(task, WORDS, 5)
    examples = [task.example(row, np.random.default_rng(seed)) for seed in range(20_000)]
    sums = []
    for e in examples:
        subset = tuple(e['positions'][e['weights'] > 0] - 1)
        sums.append(e['weights'].max() * sum(losses[subset]) if subset else 0.0)
    assert np.mean(sums) == pytest.approx(bound, rel=0.02)
    output = task.loss(model, stack(examples[:64]), None)
    assert float(output.losses['diffusion_loss'].total) == pytest.approx(sum(sums[:64]), rel=1e-4)
    assert float(output.losses['diffusion_loss'].weight) == 64 * 3


def test_settings_that_exclude_diffusion_are_errors():
    for settings in (
        {'sentence_objective': 'random'},
        {'whole_word_masking': True},
        {'final_mask_rate': 0.1},
    ):
        with pytest.raises(UserError, match='task.diffusion=true needs'):
            mlm.Config(**SETTINGS | settings)


def test_masks_are_replaced_from_the_most_to_the_least_confident(task, model, graph_and_params):
    graph, params = graph_and_params
    tokens = np.array([1, 4, 50, 4, 4, 60, 4, 4, 2])
    mask = task.tokenizer.mask
    assert (tokens == mask).sum() == 5
    allowed, greedy = np.arange(5, 90), Sampling()
    rows = [*unmasking.unmask(graph, params, tokens, mask, allowed, sampling=greedy, steps=2)]
    assert [(row == mask).sum() for row in rows] == [2, 0]
    logs = np.asarray(jax.nn.log_softmax(model(tokens[None]).logits[0, :, 5:90]))
    confidence = np.where(tokens == mask, logs.max(-1), -np.inf)
    best = np.argsort(-confidence)[:3]
    np.testing.assert_array_equal(np.flatnonzero(rows[0] != tokens), np.sort(best))
    np.testing.assert_array_equal(rows[0][best], logs.argmax(-1)[best] + 5)
    assert all((row[tokens != mask] == tokens[tokens != mask]).all() for row in rows)
    assert len([*unmasking.unmask(graph, params, tokens, mask, allowed, sampling=greedy)]) == 5
    sampled = [
        [*unmasking.unmask(graph, params, tokens, mask, allowed, sampling=Sampling(2.0), seed=seed)][-1]
        for seed in (1, 1, 2)
    ]
    np.testing.assert_array_equal(sampled[0], sampled[1])
    assert (sampled[0] != sampled[2]).any()


def test_training_lowers_the_bound(corpus, tmp_path):
    settings = ('task.diffusion=true', 'task.sentence_objective=none', 'optim.learning_rate=0.01')
    assert pretrain(tmp_path, corpus, tmp_path / 'rows', *settings) == 0
    lines = [json.loads(line) for line in (tmp_path / 'metrics.jsonl').read_text().splitlines()]
    losses = [line['eval/diffusion_loss'] for line in lines if 'eval/diffusion_loss' in line]
    assert losses[-1] < losses[0] < math.log(200) + 1


def test_text_is_written_between_given_words(pretrained):
    trained, greedy = load.read_masked(pretrained), Sampling()
    before, *_, after = generation.unmask(trained, 'every <mask> carries [MASK:3] letter', 5, 2, greedy)
    assert before == 'every [MASK] carries [MASK] [MASK] [MASK] letter'
    assert after.startswith('every ')
    assert '[MASK]' not in after
    *_, appended = generation.unmask(trained, 'every student', 4, 0, greedy)
    assert (
        len(trained.tokenizer.encode([appended])[0])
        >= len(trained.tokenizer.encode(['every student'])[0]) + 2
    )
    for text, message in (
        ('a [MASK:0]', 'stands for 0 tokens. Write a number from 1'),
        ('a [mask: -3 ]', 'stands for -3 tokens'),
        ('a [MASK:99999]', 'stands for 99999 tokens'),
        ('a [MASK:999]', 'the model reads at most'),
    ):
        with pytest.raises(UserError, match=message):
            [*generation.unmask(trained, text, 4, 0, greedy)]


def test_generate_writes_with_a_masked_language_model(pretrained):
    words = (
        'bert_jax.bin.generate',
        f'--checkpoint={pretrained}',
        '--temperature=0',
        'every [MASK:3] letter',
    )
    done = run_in_process(*words)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith('every ')
    assert 'MASK' not in done.stdout
    steps = run_in_process(*words, '--steps=2', '--show_steps').stdout.splitlines()
    assert len(steps) == 3
    assert steps[0] == 'every [MASK] [MASK] [MASK] letter'
