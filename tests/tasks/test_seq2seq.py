"""Writing one text of another: rows, what is written, its scores, and the doors."""

import json
import pathlib
import random

import numpy as np
import pytest
import sacrebleu
from rouge_score.rouge_scorer import RougeScorer

from bert_jax.core.errors import UserError
from bert_jax.data.records import Record
from bert_jax.data.seq2seq import PairConfig
from bert_jax.experiments import runs
from bert_jax.modeling import beam_search
from bert_jax.tasks import seq2seq
from bert_jax.train import load
from tests.runs import SAVED, TINY, finetune, run_here

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
def writer(tmp_path_factory, bart, pairs):
    workdir = tmp_path_factory.mktemp('writer')
    data = ('task.name=seq2seq', 'model.name=bart', 'data.length=24', 'data.target_length=20')
    course = (
        'train.steps=200',
        'optim.learning_rate=0.01',
        'train.log_every=50',
        'train.eval_every=0',
        SAVED,
    )
    # `finetune` has a config of the task classify, whose settings hold here too.
    assert finetune(workdir, bart, pairs, *data, *course) == 0
    return workdir


def task(words, **changes):
    return seq2seq.Task(seq2seq.Config(), PairConfig(length=12, **changes), words)


def record(**fields):
    return Record('line 1,', fields)


def test_rows_hold_both_texts_and_each_is_cut(words):
    long = ' '.join(f'w{i}' for i in range(30))
    t = task(words, target_length=5)
    rows, about = t.examples([record(text='w1 w2', target=long), record(text=long, target='w9')])
    assert rows.shape == (2, 2, 4 + 12)
    assert rows[..., 0].tolist() == [[4, 5], [12, 3]]
    assert about[0].target == long
    first = t.example(rows[0], np.random.default_rng(0))
    assert words.decode(first['tokens']) == 'w1 w2'
    np.testing.assert_array_equal(first['valid'], np.arange(12) < 4)
    assert words.decode(first['labels']) == 'w0 w1 w2'
    assert first['labels'].shape == first['targets'].shape == (5,)
    np.testing.assert_array_equal(first['targets'][1:], first['labels'][:-1])
    assert first['targets'][0] == words.sep
    second = t.example(rows[1], np.random.default_rng(0))
    np.testing.assert_array_equal(second['weights'], [1, 1, 1, 0, 0])


def test_scores_are_those_of_the_libraries(words):
    t = task(words)
    targets = ['w1 w2 w3 w4 w5', 'w7 w8 w9 w10', 'w5']
    texts = ['w1 w2 w3 w4 w6', 'w7 w8', 'w5']
    _, about = t.examples([record(text='w1', target=target) for target in targets])
    rows = [np.append(ids, words.sep) for ids in words.encode(texts)]
    written = np.stack([np.pad(r, (0, 8 - len(r)), constant_values=words.sep) for r in rows])
    scores = t.scores({'written': written}, about)
    assert scores['bleu'] == sacrebleu.corpus_bleu(texts, [targets]).score
    assert scores['chrf'] == sacrebleu.corpus_chrf(texts, [targets]).score
    assert scores['exact_match'] == pytest.approx(1 / 3)
    rouge = RougeScorer(['rouge2'], use_stemmer=True)
    each = [rouge.score(a, b)['rouge2'].fmeasure for a, b in zip(targets, texts, strict=True)]
    assert scores['rouge2'] == pytest.approx(100 * np.mean(each))
    assert [s['written'] for s in scores['samples']] == texts
    assert 'w7 w8' in t.describe(scores)
    assert t.scores({}, about) == {}, 'nothing is written while training'


def test_it_learns_and_writes_what_a_search_of_its_own_finds(writer, pairs, tmp_path):
    assert runs.read(writer).evals[-1]['target_loss'] < 0.5
    out = tmp_path / 'scores.json'
    flags = (f'--config={TINY}:classify', f'--checkpoint={writer}', f'--out={out}')
    data = (
        f'data.source={pairs}',
        'task.name=seq2seq',
        'model.name=bart',
        'data.length=24',
        'data.target_length=20',
    )
    done = run_here('bert_jax.bin.eval_seq2seq', *flags, *(f'--config.{d}' for d in data))
    assert done.returncode == 0, done.stderr
    scores = json.loads(out.read_text())['scores']
    assert scores['exact_match'] > 0.5
    assert scores['chrf'] > 50
    assert 'rougeLsum' in done.stdout
    trained = load.read(writer)
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
    begin = [np.array([tokenizer.sep], np.int32)] * len(ids)
    texts = beam_search.search(
        trained.graph, trained.params, begin, 20, end=tokenizer.sep, source=(tokens, valid)
    )
    expected = [tokenizer.decode(t).strip() for t in texts]
    assert [s['written'] for s in scores['samples']] == expected[:5]


def test_one_beam_takes_the_likeliest(writer, pairs, tmp_path):
    written = {}
    for k in (1, 4):
        out = tmp_path / f'{k}.jsonl'
        source = pairs.format(split='validation')
        flags = (f'--checkpoint={writer}', f'--input={source}', f'--output={out}')
        done = run_here('bert_jax.bin.predict', *flags, f'--config.task.beams={k}')
        assert done.returncode == 0, done.stderr
        written[k] = [json.loads(line)['text'] for line in out.read_text().splitlines()]
    assert len(written[1]) == 17
    assert sum(a == b for a, b in zip(written[1], written[4], strict=True)) > 8


@pytest.mark.parametrize('fields', [dict(text=' ', target='w1'), dict(text='w1', target='')])
def test_an_empty_text_is_named(words, fields):
    with pytest.raises(UserError, match='line 1, has an empty text'):
        task(words).examples([record(**fields)])


def test_before_a_target_stands_its_text(words):
    t = seq2seq.Task(seq2seq.Config(prefix=True), PairConfig(length=6, target_length=5), words)
    rows, _ = t.examples([record(text='w1 w2', target='w7 w8')])
    row = t.example(rows[0], np.random.default_rng(0))
    joined = [words.cls, *words.encode(['w1 w2'])[0], words.sep, *words.encode(['w7 w8'])[0], words.sep]
    assert [*row['targets'][:6], row['labels'][5]] == joined
    np.testing.assert_array_equal(row['labels'][:-1], row['targets'][1:])
    predicted = row['labels'][row['weights'] == 1]
    assert predicted.tolist() == joined[4:]
    assert row['weights'].shape == row['labels'].shape == (6 + 5 - 2,)


def test_a_gpt_writes_what_follows_from_the_text(gpt, pairs, tmp_path):
    data = ('task.name=seq2seq', 'task.prefix=true', 'data.length=24', 'data.target_length=20')
    course = (
        'train.steps=150',
        'optim.learning_rate=0.01',
        'train.log_every=50',
        'train.eval_every=0',
        SAVED,
    )
    assert finetune(tmp_path, gpt, pairs, *data, *course) == 0
    assert runs.read(tmp_path).evals[-1]['target_loss'] < 0.5
    out = tmp_path / 'written.jsonl'
    source = pairs.format(split='validation')
    done = run_here(
        'bert_jax.bin.predict', f'--checkpoint={tmp_path}', f'--input={source}', f'--output={out}'
    )
    assert done.returncode == 0, done.stderr
    written = [json.loads(line)['text'] for line in out.read_text().splitlines()]
    wanted = [json.loads(line)['target'] for line in pathlib.Path(source).read_text().splitlines()]
    assert sum(a == b for a, b in zip(written, wanted, strict=True)) > 8


@pytest.mark.parametrize(
    ('model', 'settings', 'named'),
    [
        ('bart', ('data.length=24', 'data.target_length=100'), 'set data.target_length lower'),
        ('gpt', ('data.length=40', 'data.target_length=30', 'task.prefix=true'), 'Rows of 70 tokens'),
    ],
)
def test_lengths_that_the_model_has_not_are_refused_before_training(
    model, settings, named, request, pairs, tmp_path
):
    with pytest.raises(UserError, match=named):
        finetune(tmp_path, request.getfixturevalue(model), pairs, 'task.name=seq2seq', *settings)


@pytest.mark.parametrize('prefix', ['true', 'false'])
def test_a_model_that_cannot_is_refused(pretrained, pairs, tmp_path, prefix):
    with pytest.raises(UserError, match=f'With task.prefix={prefix.title()} the model is a'):
        finetune(tmp_path, pretrained, pairs, 'task.name=seq2seq', f'task.prefix={prefix}')
