"""The adapter for lm-evaluation-harness: its answers are those of `eval_lm`."""

import importlib.util
import json
import math
import random
import types

import numpy as np
import pytest

from bert_jax.core.errors import UserError
from bert_jax.evals import harness, language_model
from bert_jax.modeling import decoding
from bert_jax.train import load
from tests.conftest import sentences
from tests.runs import ROOT

CONFIG = ROOT / 'configs' / 'eval' / 'lm.py'


def ask(*arguments):
    return [types.SimpleNamespace(args=args) for args in arguments]


def test_choices_are_those_of_eval_lm(gpt, tmp_path):
    texts = sentences(random.Random(7), 12)
    records = [(text.split()[0], text.partition(' ')[2], ' '.join(text.split()[:0:-1])) for text in texts]
    with (tmp_path / 'x.jsonl').open('w') as file:
        for start, *endings in records:
            file.write(json.dumps({'start': start, 'endings': endings, 'label': 0}) + '\n')
    settings = (f'eval.source={tmp_path}/x.jsonl', 'eval.template={start} {answer}')
    scores = language_model.Scorer(f'{CONFIG}:hellaswag', settings)(gpt)['scores']
    model = harness.LanguageModel(gpt)
    answers = model.loglikelihood(
        ask(*((f'{start} ', ending) for start, *endings in records for ending in endings))
    )
    totals = np.reshape([total for total, _ in answers], (-1, 2))
    assert scores['accuracy'] == np.mean(totals[:, 0] > totals[:, 1])
    spaced = model.loglikelihood(ask(*((s, f' {e}') for s, *endings in records for e in endings)))
    assert spaced == answers, 'the space belongs to the continuation'


def test_rolling_log_likelihoods_are_those_of_eval_lm(gpt, tmp_path):
    texts = [' '.join(sentences(random.Random(i), 8)) for i in range(3)]
    (tmp_path / 'text.txt').write_text('\n\n'.join(texts))
    result = language_model.Scorer(f'{CONFIG}:text', (f'eval.source={tmp_path}/text.txt',))(gpt)
    totals = harness.LanguageModel(gpt).loglikelihood_rolling(ask(*((text,) for text in texts), ('',)))
    assert totals[-1] == 0
    expected = result['tokens'] * math.log(result['scores']['perplexity'])
    assert -sum(totals) == pytest.approx(expected, rel=1e-5)


def test_generation_is_greedy_and_stops(gpt):
    trained, model = load.read_causal(gpt), harness.LanguageModel(gpt)
    text = sentences(random.Random(7), 1)[0]
    context = text.rpartition(' ')[0]
    (full,) = model.generate_until(ask((context, {'max_gen_toks': 12})))
    (ids,) = trained.tokenizer.encode([context])
    prompt = np.concatenate([[trained.tokenizer.sep], ids])
    (new,) = decoding.generate(trained.graph, trained.params, [prompt], 12, end=trained.tokenizer.sep)
    assert full
    assert trained.tokenizer.decode(ids) + full == trained.tokenizer.decode([*ids, *new])
    stop = full[2:4]
    (short,) = model.generate_until(ask((context, {'max_gen_toks': 12, 'until': [stop]})))
    assert short == full[: full.index(stop)]
    with pytest.raises(UserError, match='do_sample'):
        model.generate_until(ask((context, {'do_sample': True})))


def test_masked_language_model_scores_texts_without_context(pretrained):
    texts = sentences(random.Random(7), 3)
    model = harness.LanguageModel(pretrained)
    encoded = model._trained.tokenizer.encode(texts)
    expected = model._scorer.log_likelihoods(encoded)
    assert model.loglikelihood(ask(*(('', text) for text in texts))) == [(total, False) for total in expected]
    with pytest.raises(UserError, match='cannot continue a context'):
        model.loglikelihood(ask(('a', 'b')))
    with pytest.raises(UserError, match='needs a causal language model'):
        model.loglikelihood_rolling(ask(('a',)))


def test_missing_harness_is_one_message(gpt):
    if importlib.util.find_spec('lm_eval'):
        pytest.skip('the harness is installed')
    with pytest.raises(UserError, match='pip install lm-eval'):
        harness.make(gpt)
