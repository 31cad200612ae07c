"""The sequence-to-sequence task: rows, generated texts, scores and commands."""

import json
import pathlib
import random

import jax
import numpy as np
import pytest
import sacrebleu
from rouge_score.rouge_scorer import RougeScorer

from bert_jax.core.errors import UserError
from bert_jax.data import tokenizer as tokenizer_lib
from bert_jax.data.records import Record
from bert_jax.data.seq2seq import Seq2SeqConfig
from bert_jax.experiments import runs
from bert_jax.modeling import beam_search, module
from bert_jax.modeling.bart import BartForSeq2Seq
from bert_jax.tasks import seq2seq
from bert_jax.train import load
from tests.modeling import tiny
from tests.runs import TINY, finetune, run_in_process

WORDS = ('river', 'boat', 'letter', 'window', 'house', 'bread', 'shadow', 'bird')


@pytest.fixture(scope='module')
def pairs(tmp_path_factory):
    """`{split}.jsonl` files: the target is the second word of the text, twice."""
    folder = tmp_path_factory.mktemp('pairs')
    rng = random.Random(0)
    for split, n in (('train', 96), ('validation', 17)):
        with (folder / f'{split}.jsonl').open('w') as file:
            for _ in range(n):
                words = rng.choices(WORDS, k=3)
                file.write(json.dumps({'text': ' '.join(words), 'target': f'{words[1]} {words[1]}'}) + '\n')
    return f'{folder}/{{split}}.jsonl'


@pytest.fixture(scope='module')
def summarizer(tmp_path_factory, bart, pairs):
    workdir = tmp_path_factory.mktemp('summarizer')
    data = ('task.name=seq2seq', 'model.name=bart', 'data.length=24', 'data.target_length=20')
    settings = (
        'train.steps=120',
        'optim.learning_rate=0.01',
        'train.log_every=50',
        'train.eval_every=0',
    )
    # `finetune` uses the config of the task classify; its other settings suit this task too.
    assert finetune(workdir, bart, pairs, *data, *settings) == 0
    return workdir


def make_task(word_tokenizer, **changes):
    return seq2seq.Task(seq2seq.Config(), Seq2SeqConfig(length=12, **changes), word_tokenizer)


def make_record(**fields):
    return Record('line 1,', fields)


def test_rows_hold_both_texts_truncated_separately(word_tokenizer):
    long = ' '.join(f'w{i}' for i in range(30))
    task = make_task(word_tokenizer, target_length=5)
    rows, pairs = task.make_examples(
        [make_record(text='w1 w2', target=long), make_record(text=long, target='w9')]
    )
    assert rows.shape == (2, 2, 4 + 12)
    assert rows[..., 0].tolist() == [[4, 5], [12, 3]]
    assert pairs[0].target == long
    first = task.example(rows[0], np.random.default_rng(0))
    assert word_tokenizer.decode(first['tokens']) == 'w1 w2'
    np.testing.assert_array_equal(first['valid'], np.arange(12) < 4)
    assert word_tokenizer.decode(first['labels']) == 'w0 w1 w2'
    assert first['labels'].shape == first['targets'].shape == (5,)
    np.testing.assert_array_equal(first['targets'][1:], first['labels'][:-1])
    assert first['targets'][0] == word_tokenizer.sep
    second = task.example(rows[1], np.random.default_rng(0))
    np.testing.assert_array_equal(second['weights'], [1, 1, 1, 0, 0])


@pytest.mark.parametrize('family', tokenizer_lib._FAMILIES)
def test_no_label_before_the_last_ends_the_generation(family):
    entries = dict.fromkeys([*tokenizer_lib._FAMILIES[family], *'abcdefghĠ'])
    tokenizer = tokenizer_lib.from_merges({t: i for i, t in enumerate(entries)}, [])
    task = make_task(tokenizer, target_length=6)
    for target in ('abc', 'abcdefgh'):
        (row,), _ = task.make_examples([make_record(text='ab', target=target)])
        batch = task.example(row, np.random.default_rng(0))
        labels = batch['labels'][batch['weights'] == 1]
        assert labels.tolist().index(tokenizer.sep) == len(labels) - 1
        first = [] if family == 'gpt2' else [*tokenizer.prefix]
        room = 6 - len(tokenizer.prefix) - 1
        assert labels[:-1].tolist() == [*first, *tokenizer.encode([target])[0][:room]]
        start = tokenizer.pad if family == 't5' else tokenizer.sep
        assert batch['targets'][: len(labels)].tolist() == [start, *labels[:-1]]


def test_scores_match_the_libraries(word_tokenizer):
    task = make_task(word_tokenizer)
    targets = ['w1 w2 w3 w4 w5', 'w7 w8 w9 w10', 'w5']
    texts = ['w1 w2 w3 w4 w6', 'w7 w8', 'w5']
    _, pairs = task.make_examples([make_record(text='w1', target=target) for target in targets])
    rows = [np.append(ids, word_tokenizer.sep) for ids in word_tokenizer.encode(texts)]
    generated = np.stack([np.pad(r, (0, 8 - len(r)), constant_values=word_tokenizer.sep) for r in rows])
    scores = task.scores({'generated': generated}, pairs)
    assert scores['bleu'] == sacrebleu.corpus_bleu(texts, [targets]).score
    assert scores['chrf'] == sacrebleu.corpus_chrf(texts, [targets]).score
    assert scores['exact_match'] == pytest.approx(1 / 3)
    rouge = RougeScorer(['rouge2'], use_stemmer=True)
    each = [rouge.score(a, b)['rouge2'].fmeasure for a, b in zip(targets, texts, strict=True)]
    assert scores['rouge2'] == pytest.approx(100 * np.mean(each))
    assert [s['generated'] for s in scores['samples']] == texts
    assert 'w7 w8' in task.format_scores(scores)
    assert task.scores({}, pairs) == {}, 'nothing is generated during training'


def test_scores_of_chinese_compare_characters(caplog):
    chinese = tokenizer_lib.from_vocab([*tokenizer_lib.SPECIAL, *'我们去北京了'])
    task = make_task(chinese)
    _, pairs = task.make_examples([make_record(text='我们', target='我们去北京')])
    (ids,) = chinese.encode(['我们去北了'])
    with caplog.at_level('INFO'):
        scores = task.scores({'generated': np.append(ids, chinese.sep)[None]}, pairs)
    assert scores['rouge1'] == pytest.approx(80)
    assert scores['bleu'] > 40
    assert 'task.rouge_words=unicode; the tokenizer of BLEU is zh' in caplog.text


def test_targets_that_the_tokenizer_changes_are_reported(word_tokenizer, caplog):
    task = make_task(word_tokenizer)
    for targets, is_reported in ((['w1 w2'] * 9, False), (['w1 w2', 'w1  w2'], True), (['w1 W2'], True)):
        caplog.clear()
        task._check_reversible(targets)
        assert ('lowers bleu, chrf and exact_match' in caplog.text) == is_reported


def test_target_tokens_count_as_tokens(word_tokenizer):
    task = make_task(word_tokenizer)
    (row,), _ = task.make_examples([make_record(text='w1 w2 w3', target='w4')])
    batch = {k: np.stack([v, v]) for k, v in task.example(row, None).items()}
    assert task.count_tokens(batch) == 2 * (5 + 3), 'with [CLS] and [SEP]'


def test_target_may_be_as_long_as_the_positions(word_tokenizer):
    task = make_task(word_tokenizer, target_length=12)
    config = tiny.config(BartForSeq2Seq, max_positions=12, vocab_size=len(word_tokenizer))
    tokens = np.full((2, 12), 7, np.int32)

    @jax.jit
    def generate():
        model = task.build_model(config, module.Rngs(0))
        return task.generate(model, {'tokens': tokens, 'valid': np.ones((2, 12), bool)})['generated']

    assert generate().shape == (2, 11)


def test_model_learns_and_generates_what_beam_search_finds(summarizer, pairs, tmp_path):
    assert runs.read(summarizer).evals[-1]['target_loss'] < 0.5
    out = tmp_path / 'scores.json'
    flags = (f'--config={TINY}:classify', f'--checkpoint={summarizer}', f'--out={out}')
    data = (
        f'data.source={pairs}',
        'task.name=seq2seq',
        'model.name=bart',
        'data.length=24',
        'data.target_length=20',
    )
    done = run_in_process('bert_jax.bin.eval_seq2seq', *flags, *(f'--config.{d}' for d in data))
    assert done.returncode == 0, done.stderr
    scores = json.loads(out.read_text())['scores']
    assert scores['exact_match'] > 0.5
    assert scores['chrf'] > 50
    assert 'rougeLsum' in done.stdout
    trained = load.read(summarizer)
    lines = [
        json.loads(line) for line in pathlib.Path(pairs.format(split='validation')).read_text().splitlines()
    ]
    tokenizer = trained.tokenizer
    ids = [
        np.concatenate([[tokenizer.cls], i, [tokenizer.sep]])
        for i in tokenizer.encode([p['text'] for p in lines])
    ]
    tokens = np.stack([np.pad(i, (0, 24 - len(i))) for i in ids]).astype(np.int32)
    valid = np.arange(24) < np.array([*map(len, ids)])[:, None]
    prompts = [np.array([tokenizer.sep], np.int32)] * len(ids)
    texts = beam_search.search(
        trained.graph, trained.params, prompts, 20, end=tokenizer.sep, source=(tokens, valid)
    )
    expected = [tokenizer.decode(t).strip() for t in texts]
    assert [s['generated'] for s in scores['samples']] == expected[:5]


def test_one_beam_mostly_agrees_with_four(summarizer, pairs, tmp_path):
    generated = {}
    for k in (1, 4):
        out = tmp_path / f'{k}.jsonl'
        source = pairs.format(split='validation')
        flags = (f'--checkpoint={summarizer}', f'--input={source}', f'--output={out}')
        done = run_in_process('bert_jax.bin.predict', *flags, f'--config.task.num_beams={k}')
        assert done.returncode == 0, done.stderr
        generated[k] = [json.loads(line)['prediction'] for line in out.read_text().splitlines()]
    assert len(generated[1]) == 17
    assert sum(a == b for a, b in zip(generated[1], generated[4], strict=True)) > 8


@pytest.mark.parametrize('fields', [dict(text=' ', target='w1'), dict(text='w1', target='')])
def test_empty_text_is_rejected(word_tokenizer, fields):
    with pytest.raises(UserError, match='line 1, has an empty text'):
        make_task(word_tokenizer).make_examples([make_record(**fields)])


def test_decoder_only_row_is_text_then_target(word_tokenizer):
    task = seq2seq.Task(
        seq2seq.Config(decoder_only=True), Seq2SeqConfig(length=6, target_length=5), word_tokenizer
    )
    rows, _ = task.make_examples([make_record(text='w1 w2', target='w7 w8')])
    row = task.example(rows[0], np.random.default_rng(0))
    joined = [
        word_tokenizer.cls,
        *word_tokenizer.encode(['w1 w2'])[0],
        word_tokenizer.sep,
        *word_tokenizer.encode(['w7 w8'])[0],
        word_tokenizer.sep,
    ]
    assert [*row['tokens'][:6], row['labels'][5]] == joined
    assert row['valid'].sum() == 6
    np.testing.assert_array_equal(row['labels'][:-1], row['tokens'][1:])
    predicted = row['labels'][row['weights'] == 1]
    assert predicted.tolist() == joined[4:]
    assert row['weights'].shape == row['labels'].shape == (6 + 5 - 2,)


def test_gpt_learns_to_generate_targets(gpt, pairs, tmp_path):
    data = ('task.name=seq2seq', 'task.decoder_only=true', 'data.length=24', 'data.target_length=20')
    settings = (
        'train.steps=150',
        'optim.learning_rate=0.01',
        'train.log_every=50',
        'train.eval_every=0',
    )
    assert finetune(tmp_path, gpt, pairs, *data, *settings) == 0
    assert runs.read(tmp_path).evals[-1]['target_loss'] < 0.5
    out = tmp_path / 'generated.jsonl'
    source = pairs.format(split='validation')
    done = run_in_process(
        'bert_jax.bin.predict', f'--checkpoint={tmp_path}', f'--input={source}', f'--output={out}'
    )
    assert done.returncode == 0, done.stderr
    generated = [json.loads(line)['prediction'] for line in out.read_text().splitlines()]
    targets = [json.loads(line)['target'] for line in pathlib.Path(source).read_text().splitlines()]
    assert sum(a == b for a, b in zip(generated, targets, strict=True)) > 8


@pytest.mark.parametrize(
    ('model', 'settings', 'message'),
    [
        ('bart', ('data.length=24', 'data.target_length=100'), 'Lower data.target_length'),
        ('gpt', ('data.length=40', 'data.target_length=30', 'task.decoder_only=true'), 'Rows of 70 tokens'),
    ],
)
def test_lengths_beyond_the_positions_are_rejected_before_training(
    model, settings, message, request, pairs, tmp_path
):
    with pytest.raises(UserError, match=message):
        finetune(tmp_path, request.getfixturevalue(model), pairs, 'task.name=seq2seq', *settings)


@pytest.mark.parametrize('decoder_only', ['true', 'false'])
def test_unsuitable_model_is_rejected(pretrained, pairs, tmp_path, decoder_only):
    with pytest.raises(UserError, match=f'task.decoder_only={decoder_only.title()} needs a'):
        finetune(tmp_path, pretrained, pairs, 'task.name=seq2seq', f'task.decoder_only={decoder_only}')


def test_least_similar_text_is_the_worst_mistake(word_tokenizer):
    task = make_task(word_tokenizer)
    gold = task.gold(make_record(text='w1', target='the river '))
    assert task.mistake(gold, {'prediction': 'the river'}) is None
    near, far = (task.mistake(gold, {'prediction': text}) for text in ('the rivers', 'a bird'))
    assert 0 < near.severity < far.severity <= 100
    assert far.description.startswith('a bird instead of the river (chrF ')
