"""Evaluation of causal language models: token losses, perplexity, last words, choices, few-shot prompts."""

import json
import math
import random
import types

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import save_file

import bert_jax
from bert_jax.core.errors import UserError
from bert_jax.data import tokenizer as tokenizer_lib
from bert_jax.data import tokenizer_training
from bert_jax.evals import language_model, token_scores
from bert_jax.modeling.gpt import GptForCausalLM
from bert_jax.train import convert, load
from tests.conftest import sentences
from tests.interop import golden
from tests.modeling import tiny
from tests.runs import ROOT, run_in_process

CONFIG = ROOT / 'configs' / 'eval' / 'lm.py'


@pytest.fixture(scope='module')
def scorer(gpt):
    return token_scores.CausalScorer(load.read_causal(gpt), batch_size=3)


@pytest.fixture(scope='module')
def texts_dir(tmp_path_factory):
    """A folder of evaluation texts in several formats."""
    folder = tmp_path_factory.mktemp('texts')
    texts = sentences(random.Random(7), 24)
    (folder / 'text.txt').write_text('\n\n'.join('\n'.join(texts[i : i + 6]) for i in (0, 6, 12, 18)))
    (folder / 'validation.jsonl').write_text(
        ''.join(
            json.dumps({'passage': text.rstrip('.'), 'label': i % 2}) + '\n' for i, text in enumerate(texts)
        )
    )
    with (folder / 'train.jsonl').open('w') as file:
        for i, text in enumerate(sentences(random.Random(8), 12)):
            file.write(json.dumps({'passage': text, 'label': i % 2}) + '\n')
    with (folder / 'endings.jsonl').open('w') as file:
        for i, text in enumerate(texts):
            subject, _, rest = text.partition(' ')
            shuffled = ' '.join(rest.split()[::-1])
            options = [shuffled, rest] if i % 2 else [rest, shuffled]
            file.write(json.dumps({'start': subject, 'endings': options, 'label': i % 2}) + '\n')
    return folder


def causal(tokenizer):
    return types.SimpleNamespace(tokenizer=tokenizer, is_causal=True)


def score(gpt, arg, *overrides):
    return language_model.Scorer(f'{CONFIG}:{arg}', overrides)(gpt)


@given(st.integers(2, 60), st.integers(2, 20), st.data())
def test_windows_predict_each_token_once_with_enough_context(size, length, data):
    stride = data.draw(st.integers(1, length - 1))
    new = []
    for start, stop, first in token_scores.windows(size, length, stride):
        assert 0 <= start < first <= stop <= size
        assert stop - start <= length
        assert first - start >= length - stride or start == 0
        new += range(first, stop)
    assert new == [*range(1, size)]


def test_texts_as_long_as_the_positions_are_scored():
    graph, params = tiny.graph_and_params(GptForCausalLM, max_positions=13)
    task = types.SimpleNamespace(name='clm')
    experiment = types.SimpleNamespace(model=tiny.config(GptForCausalLM, max_positions=13), task=task)
    trained = load.TrainedModel(experiment, None, graph, params, 0)
    (scores,) = token_scores.CausalScorer(trained)([token_scores.Query(np.arange(13), 1)])
    assert scores.losses.shape == (12,)


def test_loss_that_is_not_finite_is_an_error(gpt, monkeypatch):
    scorer = token_scores.CausalScorer(load.read_causal(gpt))
    nan = np.full((16, 7), np.nan)
    monkeypatch.setattr(
        scorer, '_score', lambda rows: (nan[:, : rows.shape[1] - 1], nan[:, : rows.shape[1] - 1] > 0)
    )
    with pytest.raises(UserError, match='a loss that is not finite'):
        scorer([token_scores.Query(np.array([1, 2, 3]), 1)])


def test_losses_match_the_logits_in_every_batch(gpt, scorer):
    model, tokenizer = bert_jax.load(gpt)
    texts = tokenizer.encode(sentences(random.Random(3), 7))
    queries = [token_scores.Query(text[: 4 + i], 1 + i % 3) for i, text in enumerate(texts)]
    run = jax.jit(lambda tokens: model(tokens).logits)
    for query, result in zip(queries, scorer(queries), strict=True):
        logits = np.asarray(run(np.pad(query.tokens, (0, 12))[None, :12])[0], np.float64)
        log = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
        positions = np.arange(query.first, len(query.tokens))
        np.testing.assert_allclose(result.losses, -log[positions - 1, query.tokens[positions]], atol=1e-4)
        np.testing.assert_array_equal(
            result.is_greedy, log[positions - 1].argmax(-1) == query.tokens[positions]
        )


def test_perplexity_per_token_word_and_byte(gpt, texts_dir):
    source = texts_dir / 'text.txt'
    result = score(gpt, 'text', f'eval.source={source}', 'eval.stride=5')
    scores, text = result['scores'], source.read_text()
    assert result['rows'] == 4
    total = result['tokens'] * math.log(scores['perplexity'])
    documents = text.split('\n\n')
    assert (result['length'], result['stride']) == (32, 5)
    assert result['bytes'] == sum(len(d.encode()) for d in documents)
    assert total == pytest.approx(len(text.split()) * math.log(scores['word_perplexity']))
    assert total == pytest.approx(
        scores['bits_per_byte'] * math.log(2) * sum(len(d.encode()) for d in documents)
    )
    assert scores['perplexity'] < 12, 'chance is 200, the vocabulary size'
    assert scores['unknown'] == 0
    _, tokenizer = bert_jax.load(gpt)
    assert result['tokenizer'] == {'entries': len(tokenizer), 'fingerprint': tokenizer.fingerprint}
    assert result['tokens'] == sum(map(len, tokenizer.encode(documents)))


def test_text_without_spaces_has_no_perplexity_per_word(gpt, tmp_path):
    (tmp_path / 'zh.txt').write_text('他生于1990年，在北京 。')
    scores = score(gpt, 'text', f'eval.source={tmp_path}/zh.txt')['scores']
    assert 'bits_per_byte' in scores
    assert 'word_perplexity' not in scores


def test_longer_context_lowers_perplexity(gpt, texts_dir):
    source = f'eval.source={texts_dir / "text.txt"}'
    short, long = (
        score(gpt, 'text', source, f'eval.length={n}', 'eval.stride=1')['scores']['perplexity']
        for n in (2, 16)
    )
    assert long < short


def test_default_text_is_held_out_from_pretraining(gpt):
    result = score(gpt, 'text')
    assert result['source'] == 'held-out documents'
    assert result['rows'] == 8, 'a fifth of forty'
    assert result['scores']['perplexity'] < 12


def test_windows_of_a_converted_model_have_all_its_positions(tmp_path, texts_dir):
    config, tensors, _ = golden.read()[1]['GPT2LMHeadModel']
    (tmp_path / 'theirs').mkdir()
    (tmp_path / 'theirs' / 'config.json').write_text(json.dumps(config))
    save_file(tensors, tmp_path / 'theirs' / 'model.safetensors')
    vocab = [*tokenizer_lib.SPECIAL, *'abcdefghijklmnopqrstuvwxyz.']
    (tmp_path / 'theirs' / 'vocab.txt').write_text('\n'.join(vocab))
    convert.from_hf(str(tmp_path / 'theirs'), tmp_path / 'ours')
    result = score(tmp_path / 'ours', 'text', f'eval.source={texts_dir}/text.txt')
    assert (result['length'], result['stride']) == (config['n_positions'], config['n_positions'] // 2)
    assert result['length'] != 128, 'the default of data.length'


def test_last_word_is_correct_if_all_its_tokens_are_greedy(gpt, texts_dir):
    source = f'eval.source={texts_dir}/{{split}}.jsonl'
    result = score(gpt, 'lambada', source, 'eval.split=validation')
    assert result['rows'] == 24
    assert 0.1 < result['scores']['accuracy'] < 1
    model, tokenizer = bert_jax.load(gpt)
    run = jax.jit(lambda tokens: model(tokens).logits.argmax(-1))
    correct = []
    for line in (texts_dir / 'validation.jsonl').read_text().splitlines():
        passage = json.loads(line)['passage']
        full, context = tokenizer.encode([passage, passage.rpartition(' ')[0]])
        tokens = np.concatenate([[tokenizer.sep], full]).astype(np.int32)
        predicted = np.asarray(run(tokens[None]))[0]
        correct.append(bool((predicted[len(context) : -1] == full[len(context) :]).all()))
    assert result['scores']['accuracy'] == pytest.approx(np.mean(correct))
    passages = [json.loads(s)['passage'] for s in (texts_dir / 'validation.jsonl').read_text().splitlines()]
    assert result['bytes'] == sum(len(' ' + p.rpartition(' ')[2]) for p in passages)
    assert result['tokens'] == sum(len(tokenizer.encode([p.rpartition(' ')[2]])[0]) for p in passages)


def test_grammatical_endings_are_chosen(gpt, texts_dir):
    overrides = ('eval.template={start} {answer}', f'eval.source={texts_dir}/endings.jsonl')
    result = score(gpt, 'hellaswag', *overrides)
    assert result['scores']['accuracy'] == 1
    assert result['scores']['majority'] == 0.5


def test_examples_with_answers_precede_the_prompt(texts_dir):
    overrides = [
        f'eval.source={texts_dir}/{{split}}.jsonl',
        'eval.template={passage} = {answer}',
        "eval.answers=('no','yes')",
        'eval.num_shots=2',
        "eval.separator=' | '",
    ]
    config = language_model.read_config(f'{CONFIG}:sst2', overrides)
    records = language_model.records_lib.read(config.source, 'validation')
    prompts = language_model._prompts(config, records)
    train = [json.loads(line) for line in (texts_dir / 'train.jsonl').read_text().splitlines()]
    answers = {record['passage']: ('no', 'yes')[record['label']] for record in train}
    for prompt, record in zip(prompts, records, strict=True):
        *examples, last = prompt.split(' | ')
        assert last == f'{record.fields["passage"]} = '
        assert len(examples) == 2
        for text, answer in (s.split(' = ') for s in examples):
            assert answers[text] == answer
    assert prompts == language_model._prompts(config, records)
    assert len({p.split(' | ')[0] for p in prompts}) > 3


def test_few_shot_prompts_are_scored(gpt, texts_dir):
    overrides = (
        f'eval.source={texts_dir}/{{split}}.jsonl',
        'eval.template={passage} {answer}',
        "eval.answers=('at night','again')",
        'eval.num_shots=1',
    )
    result = score(gpt, 'sst2', *overrides, 'eval.length=64')
    assert {'accuracy', 'accuracy_token_normalized', 'accuracy_byte_normalized', 'majority'} == {
        *result['scores']
    }
    assert result['scores']['accuracy'] == pytest.approx(0.5, abs=0.3)


def test_long_prompts_lose_their_beginning(scorer):
    tokenizer = scorer.trained.tokenizer
    text = ' '.join(['the river'] * 30)
    (query,) = language_model.make_queries([('line 1,', text, ' again')], causal(tokenizer), 12)
    assert len(query.tokens) == 12
    assert tokenizer.decode(query.tokens[query.first :]) == 'again'
    with pytest.raises(
        UserError, match="line 1, has the answer 'the river.*longer than the window of 4 tokens"
    ):
        language_model.make_queries([('line 1,', 'the', text)], causal(tokenizer), 4)


def test_token_across_the_border_belongs_to_the_continuation():
    from bert_jax.data import tokenizer as tokenizer_lib

    bpe = tokenizer_training.train(
        ['New York is a city'] * 9, tokenizer_lib.TokenizerConfig(kind='bpe', vocab_size=300)
    )
    (query,) = language_model.make_queries([('line 1,', 'New Y', 'ork')], causal(bpe), 50)
    assert bpe.decode(query.tokens[: query.first]) + bpe.decode(query.tokens[query.first :]) == 'New York'
    assert bpe.decode(query.tokens[query.first :]).endswith('York')


def test_command_prints_and_writes_scores(gpt, texts_dir, tmp_path):
    out = tmp_path / 'scores.json'
    flags = (f'--config={CONFIG}:text', f'--checkpoint={gpt}', f'--out={out}')
    done = run_in_process('bert_jax.bin.eval_lm', *flags, f'--config.eval.source={texts_dir}/text.txt')
    assert done.returncode == 0, done.stderr
    assert 'bits_per_byte' in done.stdout
    assert json.loads(out.read_text())['scores']['perplexity'] > 1
    assert 'The tokenizer discards case' in done.stderr


@pytest.mark.parametrize(
    ('arg', 'override', 'message'),
    [
        ('sst2', 'eval.template=x', 'must end with {answer}'),
        ('sst2', 'eval.template={q {answer}', 'is not a valid template'),
        ('sst2', 'eval.template={} {answer}', 'only field names'),
        ('sst2', "eval.answers=('a','a')", 'a repeated answer'),
        ('text', 'eval.length=1', 'leaves nothing to predict'),
        ('text', 'eval.stride=40', 'must be less than the window of 32 tokens'),
        ('text', 'eval.sources=x', "did you mean 'source'"),
        ('text', 'eval.source=no.txt', "No file matches 'no.txt'"),
        ('text', 'eval.length=900', 'positions'),
        ('lambada', 'eval.source=x.conll', 'No file matches'),
    ],
)
def test_invalid_settings_are_rejected(gpt, arg, override, message):
    with pytest.raises(UserError, match=message):
        score(gpt, arg, override)


def test_examples_must_not_be_evaluated_records(gpt, texts_dir):
    source = f'eval.source={texts_dir}/train.jsonl'
    with pytest.raises(UserError, match='would take examples from the evaluated records'):
        score(gpt, 'sst2', source, 'eval.template={passage} {answer}', 'eval.num_shots=1')


def test_answers_are_in_the_order_of_class_ids(tmp_path):
    options = ['eval.template={q} {answer}', f'eval.source={tmp_path}/x.jsonl']
    config = language_model.read_config(f'{CONFIG}:sst2', options)
    (tmp_path / 'x.jsonl').write_text('{"q": "a", "label": 1}\n')
    records = language_model.records_lib.read(config.source, '')
    assert language_model._options(config, records) == ([['negative', 'positive']], [1])
    (tmp_path / 'x.jsonl').write_text('{"q": "a", "label": 1}\n{"q": "b", "label": 7}\n')
    with pytest.raises(UserError, match='line 2, has the unknown label 7'):
        language_model._options(config, language_model.records_lib.read(config.source, ''))


def test_answers_that_are_class_names_need_no_order(tmp_path):
    (tmp_path / 'x.jsonl').write_text('{"q": "a", "label": "glad"}\n{"q": "b", "label": "sad"}\n')
    for answers in ("('glad','sad')", "('sad','glad')"):
        options = ['eval.template={q} {answer}', f'eval.source={tmp_path}/x.jsonl', f'eval.answers={answers}']
        config = language_model.read_config(f'{CONFIG}:sst2', options)
        records = language_model.records_lib.read(config.source, '')
        assert language_model._options(config, records) == ([['glad', 'sad']] * 2, [0, 1])


def test_label_without_an_ending_is_rejected(gpt, tmp_path):
    lines = ({'ctx': 'a', 'ends': ['b', 'c'], 'label': 2}, {'ctx': 'a', 'ends': ['b', 'c', 'd'], 'label': 0})
    (tmp_path / 'x.jsonl').write_text(''.join(json.dumps(line) + '\n' for line in lines))
    settings = ('eval.template={ctx} {answer}', f'eval.source={tmp_path}/x.jsonl', 'eval.endings=ends')
    with pytest.raises(UserError, match='line 1, has the label 2, but only 2 endings'):
        score(gpt, 'hellaswag', *settings)


def test_messages_name_settings_of_eval(gpt, tmp_path):
    (tmp_path / 'x.jsonl').write_text('{"q": "a", "label": 1.5}\n')
    with pytest.raises(UserError, match='eval.label'):
        score(gpt, 'sst2', 'eval.template={q} {answer}', f'eval.source={tmp_path}/x.jsonl', 'eval.label=x')


def test_bert_is_no_causal_language_model(pretrained):
    with pytest.raises(UserError, match='is not a causal language model'):
        load.read_causal(pretrained)
