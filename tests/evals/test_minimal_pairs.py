"""Minimal pairs and masked text: pseudo-log-likelihoods, log-likelihoods, ties, groups, the loss of masked tokens."""

import json
import random
import re

import numpy as np
import pytest

import bert_jax
from bert_jax.core.errors import UserError
from bert_jax.data import tfds_data
from bert_jax.data.tokenizer import Tokenizer
from bert_jax.evals import language_model, token_scores
from bert_jax.train import load
from tests.conftest import sentences
from tests.runs import ROOT

CONFIG = ROOT / 'configs' / 'eval' / 'lm.py'


def score(checkpoint, arg, *overrides):
    return language_model.Scorer(f'{CONFIG}:{arg}', overrides)(checkpoint)


@pytest.fixture(scope='module')
def texts():
    """Texts of 2 to 12 words, in random order."""
    words = ' '.join(sentences(random.Random(5), 60)).split()
    return [' '.join(words[7 * i :][: 2 + i % 11]) for i in range(40)]


def write_pairs(path, pairs):
    path.write_text(
        ''.join(
            json.dumps({'sentence_good': good, 'sentence_bad': bad, 'linguistics_term': group}) + '\n'
            for good, bad, group in pairs
        )
    )
    return f'eval.source={path}'


def log_softmax(logits):
    logits = np.asarray(logits, np.float64)
    return (
        logits
        - np.log(np.exp(logits - logits.max(-1, keepdims=True)).sum(-1, keepdims=True))
        - logits.max(-1, keepdims=True)
    )


def pseudo_log_likelihood(model, tokenizer: Tokenizer, text):
    """Mask one token after another, each in a row without padding."""
    (ids,) = tokenizer.encode([text])
    tokens = np.concatenate([tokenizer.prefix, ids, [tokenizer.sep]])
    total = 0.0
    for position in range(1, len(tokens) - 1):
        masked = tokens.copy()
        masked[position] = tokenizer.mask
        total += log_softmax(model(masked[None].astype(np.int32)).logits[0, position])[tokens[position]]
    return total


def test_pseudo_log_likelihoods_equal_those_of_one_masked_token_at_a_time(pretrained, texts):
    model, tokenizer = bert_jax.load(pretrained)
    scorer = token_scores.MaskedScorer(load.read_masked(pretrained), batch_size=7)
    ours = scorer.log_likelihoods(tokenizer.encode(texts))
    expected = [pseudo_log_likelihood(model, tokenizer, text) for text in texts[:4]]
    np.testing.assert_allclose(ours[:4], expected, rtol=1e-5)
    assert len({*ours.round(3)}) > 30


def test_log_likelihoods_equal_those_of_one_text_at_a_time(gpt, texts):
    model, tokenizer = bert_jax.load(gpt)
    encoded = tokenizer.encode(texts)
    ours = token_scores.CausalScorer(load.read_causal(gpt), batch_size=7).log_likelihoods(encoded)
    for total, ids in zip(ours[:4], encoded, strict=False):
        tokens = np.concatenate([[tokenizer.sep], ids]).astype(np.int32)
        logs = log_softmax(model(tokens[None]).logits[0])
        assert total == pytest.approx(logs[np.arange(len(ids)), ids].sum(), rel=1e-5)


@pytest.mark.parametrize('kind', ['gpt', 'pretrained'])
def test_language_models_prefer_sentences_to_strange_words(kind, request, texts, tmp_path):
    pairs = [(text, re.sub('[a-z]', 'q', text), 'long' if len(text) > 30 else 'short') for text in texts]
    result = score(request.getfixturevalue(kind), 'blimp', write_pairs(tmp_path / 'pairs.jsonl', pairs))
    scores = result['scores']
    assert scores['accuracy'] > 0.9
    num_long = sum(group == 'long' for *_, group in pairs)
    mean = (num_long * scores['accuracy/long'] + (40 - num_long) * scores['accuracy/short']) / 40
    assert scores['accuracy'] == pytest.approx(mean)
    assert result['rows'] == 40


def test_ties_are_wrong(pretrained, texts, tmp_path):
    pairs = [(text, text, 'same') for text in texts]
    assert score(pretrained, 'blimp', write_pairs(tmp_path / 'x.jsonl', pairs))['scores']['accuracy'] == 0


def test_unreadable_pairs_are_errors(gpt, pretrained, tmp_path):
    with pytest.raises(UserError, match=r'line 1, has an empty sentence'):
        score(gpt, 'blimp', write_pairs(tmp_path / 'x.jsonl', [('', 'a', 'x')]))
    with pytest.raises(UserError, match=r"line 1, has no field 'ok'.*Set eval.good"):
        score(gpt, 'blimp', write_pairs(tmp_path / 'x.jsonl', [('a', 'b', 'x')]), 'eval.good=ok')


def test_a_masked_model_has_no_causal_likelihood(pretrained, tmp_path):
    source = write_pairs(tmp_path / 'x.jsonl', [('a', 'b', 'x')])
    with pytest.raises(UserError, match='eval.likelihood=causal needs a model that predicts next tokens'):
        score(pretrained, 'blimp', source, 'eval.likelihood=causal')


def test_all_configs_of_a_data_set_are_scored(pretrained, tmp_path, monkeypatch):
    paths = [tmp_path / name for name in ('a.jsonl', 'b.jsonl')]
    for path in paths:
        write_pairs(path, [(text, 'a', path.stem) for text in sentences(random.Random(1), 9)])
    monkeypatch.setattr(tfds_data, 'list_configs', lambda name: [*map(str, paths)])
    result = score(pretrained, 'blimp', 'eval.limit=4')
    assert result['rows'] == 8
    assert {'accuracy/a', 'accuracy/b'} < result['scores'].keys()


def test_configs_of_a_data_set(tmp_path, monkeypatch):
    for name in ('blimp/b/0.1.0', 'blimp/a/0.1.0', 'trec/1.0.0'):
        (tmp_path / name).mkdir(parents=True)
    monkeypatch.setenv('TFDS_DATA_DIR', str(tmp_path))
    assert tfds_data.list_configs('blimp') == ['blimp/a', 'blimp/b']
    for name in ('blimp/b', 'trec', 'pairs.jsonl', f'{tmp_path}/*.jsonl'):
        assert tfds_data.list_configs(name) == [name]


def test_masked_loss_is_that_of_the_masked_tokens(pretrained, tmp_path):
    (tmp_path / 'text.txt').write_text('\n\n'.join(sentences(random.Random(3), 6)))
    source = (f'eval.source={tmp_path}/text.txt', 'eval.length=8', 'eval.mask_rate=0.4')
    result = score(pretrained, 'masked', *source)
    calls = []

    def run(self, tokens, lengths, positions, labels):
        calls.append((tokens, lengths, positions, labels))
        return original(self, tokens, lengths, positions, labels)

    original = token_scores.MaskedScorer.__call__
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(token_scores.MaskedScorer, '__call__', run)
        assert score(pretrained, 'masked', *source)['scores'] == result['scores'], 'the masks are the same'
    ((tokens, lengths, positions, labels),) = calls
    model, tokenizer = bert_jax.load(pretrained)
    losses, correct = [], []
    for row, length, at, expected in zip(tokens, lengths, positions, labels, strict=True):
        logs = log_softmax(model(row[None, :length]).logits[0])
        for position, label in zip(at[at > 0], expected[at > 0], strict=True):
            losses.append(-logs[position, label])
            correct.append(logs[position].argmax() == label)
    assert result['scores']['masked_loss'] == pytest.approx(np.mean(losses), rel=1e-5)
    assert result['scores']['masked_accuracy'] == pytest.approx(np.mean(correct))
    assert result['tokens'] == len(losses)
    encoded = tokenizer.encode(sentences(random.Random(3), 6))
    assert len(tokens) == sum(-(-len(ids) // 6) for ids in encoded)
    assert result['tokens'] == pytest.approx(0.4 * sum(map(len, encoded)), rel=0.15)


def test_bound_of_the_likelihood_weighs_the_losses_of_masked_tokens(pretrained, tmp_path):
    texts = sentences(random.Random(3), 6)
    (tmp_path / 'text.txt').write_text('\n\n'.join(texts))
    source = (f'eval.source={tmp_path}/text.txt', 'eval.length=8')
    calls, original = [], token_scores.MaskedScorer.__call__

    def run(self, *rows):
        calls.append((*rows, original(self, *rows).losses))
        return original(self, *rows)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(token_scores.MaskedScorer, '__call__', run)
        result = score(pretrained, 'diffusion', *source)
    ((tokens, lengths, positions, _, losses),) = calls
    num_masked = (positions > 0).sum(1)
    rng = np.random.default_rng(0)
    rates = rng.permutation(np.arange(1, len(tokens) + 1) - rng.random(len(tokens))) / len(tokens)
    np.testing.assert_array_equal(
        np.floor(sorted(rates * len(tokens))), np.arange(len(tokens)), 'spread evenly'
    )
    assert np.corrcoef(num_masked / (lengths - 2), rates)[0, 1] > 0.7
    nats = sum(loss[:n].sum() / rate for loss, n, rate in zip(losses, num_masked, rates, strict=True))
    assert result['tokens'] == (lengths - 2).sum()
    assert result['scores']['diffusion_loss'] == pytest.approx(nats / result['tokens'])
    assert result['scores']['bits_per_byte'] == pytest.approx(nats / np.log(2) / sum(map(len, texts)))


def test_held_out_documents_are_the_default(pretrained):
    result = score(pretrained, 'masked')
    assert (result['source'], result['rows']) == ('held-out documents', 8)
    assert result['scores']['masked_loss'] < np.log(200), 'chance'


def test_kind_of_model_is_checked(gpt, pretrained):
    with pytest.raises(UserError, match='is not a masked language model'):
        score(gpt, 'masked')
    with pytest.raises(UserError, match='is not a causal language model'):
        score(pretrained, 'text')
    with pytest.raises(UserError, match='eval.length=2 leaves nothing to predict. Set it to 3 or more'):
        score(pretrained, 'masked', 'eval.length=2')
