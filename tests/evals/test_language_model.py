"""What a causal language model is asked: every token once, and the same numbers as from its scores."""

import json
import math
import random

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import bert_jax
from bert_jax.core.errors import UserError
from bert_jax.evals import language_model
from tests.conftest import sentences
from tests.runs import ROOT, run_here

CONFIG = ROOT / 'configs' / 'eval' / 'lm.py'


@pytest.fixture(scope='module')
def reader(gpt):
    return language_model.Reader(gpt, batch_size=3)


@pytest.fixture(scope='module')
def written(tmp_path_factory):
    """A folder with new text in several forms."""
    folder = tmp_path_factory.mktemp('written')
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


def score(gpt, arg, *overrides):
    return language_model.Scorer(f'{CONFIG}:{arg}', overrides)(gpt)


@given(st.integers(2, 60), st.integers(2, 20), st.data())
def test_windows_predict_each_token_once_with_what_stands_before(size, length, data):
    stride = data.draw(st.integers(1, length - 1))
    new = []
    for start, stop, first in language_model.windows(size, length, stride):
        assert 0 <= start < first <= stop <= size
        assert stop - start <= length
        assert first - start >= length - stride or start == 0
        new += range(first, stop)
    assert new == [*range(1, size)]


def test_losses_are_those_of_the_scores_whatever_is_read_beside(gpt, reader):
    model, tokenizer = bert_jax.load(gpt)
    texts = tokenizer.encode(sentences(random.Random(3), 7))
    pieces = [language_model.Piece(text[: 4 + i], 1 + i % 3) for i, text in enumerate(texts)]
    run = jax.jit(lambda tokens: model(tokens).logits)
    for piece, found in zip(pieces, reader(pieces), strict=True):
        logits = np.asarray(run(np.pad(piece.tokens, (0, 12))[None, :12])[0], np.float64)
        log = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
        places = np.arange(piece.first, len(piece.tokens))
        np.testing.assert_allclose(found.losses, -log[places - 1, piece.tokens[places]], atol=1e-4)
        np.testing.assert_array_equal(found.likeliest, log[places - 1].argmax(-1) == piece.tokens[places])


def test_perplexity_is_of_tokens_words_and_bytes(gpt, written):
    source = written / 'text.txt'
    found = score(gpt, 'text', f'eval.source={source}', 'eval.stride=5')
    s, text = found['scores'], source.read_text()
    assert found['rows'] == 4
    total = s['tokens'] * math.log(s['perplexity'])
    documents = text.split('\n\n')
    assert total == pytest.approx(len(text.split()) * math.log(s['word_perplexity']))
    assert total == pytest.approx(s['bits_per_byte'] * math.log(2) * sum(len(d.encode()) for d in documents))
    assert s['perplexity'] < 12, 'of 200 entries'
    assert s['unknown'] == 0
    _, tokenizer = bert_jax.load(gpt)
    assert s['tokens'] == sum(map(len, tokenizer.encode(documents)))


def test_more_context_makes_text_less_surprising(gpt, written):
    source = f'eval.source={written / "text.txt"}'
    near, far = (
        score(gpt, 'text', source, f'eval.length={n}', 'eval.stride=1')['scores']['perplexity']
        for n in (2, 16)
    )
    assert far < near


def test_held_out_text_is_what_no_row_was_trained_on(gpt):
    found = score(gpt, 'text')
    assert found['source'] == 'held-out documents'
    assert found['rows'] == 8, 'a fifth of forty'
    assert found['scores']['perplexity'] < 12


def test_a_last_word_is_right_if_all_its_tokens_are_the_likeliest(gpt, written):
    source = f'eval.source={written}/{{split}}.jsonl'
    found = score(gpt, 'lambada', source, 'eval.split=validation')
    assert found['rows'] == 24
    assert 0.1 < found['scores']['accuracy'] < 1
    model, tokenizer = bert_jax.load(gpt)
    run = jax.jit(lambda tokens: model(tokens).logits.argmax(-1))
    right = []
    for line in (written / 'validation.jsonl').read_text().splitlines():
        passage = json.loads(line)['passage']
        whole, context = tokenizer.encode([passage, passage.rpartition(' ')[0]])
        tokens = np.concatenate([[tokenizer.sep], whole]).astype(np.int32)
        guesses = np.asarray(run(tokens[None]))[0]
        right.append(bool((guesses[len(context) : -1] == whole[len(context) :]).all()))
    assert found['scores']['accuracy'] == pytest.approx(np.mean(right))


def test_sense_is_likelier_than_nonsense(gpt, written):
    overrides = ('eval.template={start} {answer}', f'eval.source={written}/endings.jsonl')
    found = score(gpt, 'hellaswag', *overrides)
    assert found['scores']['accuracy'] == 1
    assert found['scores']['majority'] == 0.5


def test_examples_stand_before_the_prompt_with_their_answers(written):
    overrides = [
        f'eval.source={written}/{{split}}.jsonl',
        'eval.template={passage} = {answer}',
        "eval.answers=('no','yes')",
        'eval.shots=2',
        "eval.between=' | '",
    ]
    config = language_model.read_config(f'{CONFIG}:sst2', overrides)
    found = language_model.records.read(config.source, 'validation')
    prompts = language_model._prompts(config, found)
    train = [json.loads(line) for line in (written / 'train.jsonl').read_text().splitlines()]
    answers = {record['passage']: ('no', 'yes')[record['label']] for record in train}
    for prompt, record in zip(prompts, found, strict=True):
        *shown, last = prompt.split(' | ')
        assert last == f'{record.fields["passage"]} = '
        assert len(shown) == 2
        for text, answer in (s.split(' = ') for s in shown):
            assert answers[text] == answer
    assert prompts == language_model._prompts(config, found)
    assert len({p.split(' | ')[0] for p in prompts}) > 3


def test_prompts_with_examples_are_scored(gpt, written):
    overrides = (
        f'eval.source={written}/{{split}}.jsonl',
        'eval.template={passage} {answer}',
        "eval.answers=('at night','again')",
        'eval.shots=1',
    )
    found = score(gpt, 'sst2', *overrides, 'eval.length=64')
    assert {'accuracy', 'accuracy_by_token', 'accuracy_by_byte', 'majority'} == {*found['scores']}
    assert found['scores']['accuracy'] == pytest.approx(0.5, abs=0.3)


def test_long_prompts_lose_their_start(reader):
    tokenizer = reader.trained.tokenizer
    text = ' '.join(['the river'] * 30)
    (piece,) = language_model._continued([('line 1,', text, ' again')], tokenizer, 12)
    assert len(piece.tokens) == 12
    assert tokenizer.decode(piece.tokens[piece.first :]) == 'again'
    with pytest.raises(UserError, match="line 1, asks for 'the river.*more tokens than the 4 that"):
        language_model._continued([('line 1,', 'the', text)], tokenizer, 4)


def test_a_token_over_the_border_belongs_to_what_goes_on():
    from bert_jax.data import tokenizer as tokenizer_lib

    bpe = tokenizer_lib.train(
        ['New York is a city'] * 9, tokenizer_lib.TokenizerConfig(kind='bpe', vocab_size=300)
    )
    (piece,) = language_model._continued([('line 1,', 'New Y', 'ork')], bpe, 50)
    assert bpe.decode(piece.tokens[: piece.first]) + bpe.decode(piece.tokens[piece.first :]) == 'New York'
    assert bpe.decode(piece.tokens[piece.first :]).endswith('York')


def test_the_door_prints_and_writes_scores(gpt, written, tmp_path):
    out = tmp_path / 'scores.json'
    flags = (f'--config={CONFIG}:text', f'--checkpoint={gpt}', f'--out={out}')
    done = run_here('bert_jax.bin.eval_lm', *flags, f'--config.eval.source={written}/text.txt')
    assert done.returncode == 0, done.stderr
    assert 'bits_per_byte' in done.stdout
    assert json.loads(out.read_text())['scores']['perplexity'] > 1
    assert 'the tokenizer loses case' in done.stderr


@pytest.mark.parametrize(
    ('arg', 'override', 'problem'),
    [
        ('sst2', 'eval.template=x', 'must end with {answer}'),
        ('sst2', 'eval.template={q {answer}', 'cannot be read'),
        ('sst2', 'eval.template={} {answer}', 'names of fields alone'),
        ('sst2', "eval.answers=('a','a')", 'an answer twice'),
        ('text', 'eval.length=1', 'leaves nothing to predict'),
        ('text', 'eval.stride=40', 'must be less than the 32 tokens'),
        ('text', 'eval.sources=x', "did you mean 'source'"),
        ('text', 'eval.source=no.txt', "No file matches 'no.txt'"),
        ('text', 'eval.length=900', 'positions'),
        ('lambada', 'eval.source=x.conll', 'No file matches'),
    ],
)
def test_what_cannot_be_asked_is_said(gpt, arg, override, problem):
    with pytest.raises(UserError, match=problem):
        score(gpt, arg, override)


def test_examples_are_not_those_that_are_asked_for(gpt, written):
    source = f'eval.source={written}/train.jsonl'
    with pytest.raises(UserError, match='would show the records that are asked for'):
        score(gpt, 'sst2', source, 'eval.template={passage} {answer}', 'eval.shots=1')


def test_answers_are_in_the_order_of_the_numbers_of_classes(tmp_path):
    options = ['eval.template={q} {answer}', f'eval.source={tmp_path}/x.jsonl']
    config = language_model.read_config(f'{CONFIG}:sst2', options)
    (tmp_path / 'x.jsonl').write_text('{"q": "a", "label": 1}\n')
    found = language_model.records.read(config.source, '')
    assert language_model._options(config, found) == ([['negative', 'positive']], [1])
    (tmp_path / 'x.jsonl').write_text('{"q": "a", "label": 1}\n{"q": "b", "label": 7}\n')
    with pytest.raises(UserError, match='line 2, has the label 7'):
        language_model._options(config, language_model.records.read(config.source, ''))


def test_answers_that_are_the_names_of_classes_need_no_order(tmp_path):
    (tmp_path / 'x.jsonl').write_text('{"q": "a", "label": "glad"}\n{"q": "b", "label": "sad"}\n')
    for answers in ("('glad','sad')", "('sad','glad')"):
        options = ['eval.template={q} {answer}', f'eval.source={tmp_path}/x.jsonl', f'eval.answers={answers}']
        config = language_model.read_config(f'{CONFIG}:sst2', options)
        found = language_model.records.read(config.source, '')
        assert language_model._options(config, found) == ([['glad', 'sad']] * 2, [0, 1])


def test_a_label_without_an_ending_is_named(gpt, tmp_path):
    lines = ({'ctx': 'a', 'ends': ['b', 'c'], 'label': 2}, {'ctx': 'a', 'ends': ['b', 'c', 'd'], 'label': 0})
    (tmp_path / 'x.jsonl').write_text(''.join(json.dumps(line) + '\n' for line in lines))
    settings = ('eval.template={ctx} {answer}', f'eval.source={tmp_path}/x.jsonl', 'eval.endings=ends')
    with pytest.raises(UserError, match='line 1, has the label 2 and 2 endings'):
        score(gpt, 'hellaswag', *settings)


def test_settings_have_the_names_of_this_config(gpt, tmp_path):
    (tmp_path / 'x.jsonl').write_text('{"q": "a", "label": 1.5}\n')
    with pytest.raises(UserError, match='set eval.label'):
        score(gpt, 'sst2', 'eval.template={q} {answer}', f'eval.source={tmp_path}/x.jsonl', 'eval.label=x')


def test_a_bert_predicts_no_next_token(pretrained):
    with pytest.raises(UserError, match='does not predict the next token'):
        language_model.Reader(pretrained)
