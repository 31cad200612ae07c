"""The DNA task: k-mers as randomly assigned word pieces, rows, and initialization of a run."""

import json
import logging

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import bert_jax
from bert_jax.core.errors import UserError
from bert_jax.data import tokenizer as tokenizer_lib
from bert_jax.data.labeled import LabeledConfig
from bert_jax.data.records import Record
from bert_jax.data.rows import unpack
from bert_jax.data.sequences import KmerTokenizer
from bert_jax.tasks import dna
from bert_jax.train import load
from tests.runs import TINY, metric_lines, run_in_process


@given(st.text('ACGT', max_size=20), st.integers(1, 3), st.integers(1, 4))
def test_every_kmer_has_its_own_word_piece(word_tokenizer, text, k, stride):
    tokenizer = KmerTokenizer(word_tokenizer, 'ACGT', k, 0, stride)
    assert len({*tokenizer.table.values()}) == 4**k
    kmers = {i: kmer for kmer, i in tokenizer.table.items()}
    (ids,) = tokenizer.encode([text])
    assert [kmers[i] for i in ids] == [text[i : i + k] for i in range(0, len(text) - k + 1, stride)]
    np.testing.assert_array_equal(tokenizer.encode([f' {text.lower()}\n'])[0], ids)


def test_seed_determines_the_assignment_and_unused_pieces_are_skipped():
    vocabulary = tokenizer_lib.from_vocab(
        [*tokenizer_lib.SPECIAL, *(f'[unused{i}]' for i in range(50)), *'abcde']
    )
    tables = [KmerTokenizer(vocabulary, 'ACGT', 1, seed).table for seed in (0, 0, 1, 2, 3)]
    assert tables[0] == tables[1]
    assert len({str(t) for t in tables}) > 2
    assert all(i >= 55 for t in tables for i in t.values())


def test_symbols_outside_the_alphabet_are_unknown(word_tokenizer):
    tokenizer = KmerTokenizer(word_tokenizer, 'ACGT', 1, 0)
    assert KmerTokenizer(word_tokenizer, 'tgca', 1, 0).table == tokenizer.table
    assert tokenizer.encode(['ANA'])[0].tolist() == [
        tokenizer.table['A'],
        word_tokenizer.unk,
        tokenizer.table['A'],
    ]


@pytest.mark.parametrize(('alphabet', 'k'), [('ACGT', 8), ('ACGT', 16), ('', 1)])
def test_too_many_kmers_are_rejected(word_tokenizer, alphabet, k):
    with pytest.raises(UserError, match='k-mers, but must give 1 to .* word pieces'):
        KmerTokenizer(word_tokenizer, alphabet, k, 0)


def test_fake_language_is_rejected(word_tokenizer):
    data = LabeledConfig(fake_language='shared')
    with pytest.raises(UserError, match='data.fake_language=shared has no effect on task.name=dna'):
        dna.Task(dna.Config(labels=('no', 'yes')), data, word_tokenizer)


def test_row_is_the_sequence_between_special_tokens(word_tokenizer):
    task = dna.Task(dna.Config(labels=('no', 'yes'), kmer=2), LabeledConfig(length=10), word_tokenizer)
    rows = task.make_examples([Record('a', {'text': 'ACGT', 'label': 'yes'})]).rows
    row = unpack(rows[0])
    table = task.tokenizer.table
    assert row.tokens[: row.length].tolist() == [
        word_tokenizer.cls,
        table['AC'],
        table['CG'],
        table['GT'],
        word_tokenizer.sep,
    ]
    assert row.label == 1


def test_truncated_and_unknown_kmers_are_logged(word_tokenizer, caplog):
    task = dna.Task(dna.Config(labels=('no', 'yes'), kmer=2), LabeledConfig(length=6), word_tokenizer)
    records = [Record('a', {'text': text, 'label': 'yes'}) for text in ('ACGTACGT', 'ANT', 'ACGTA', 'ACGUU')]
    with caplog.at_level(logging.INFO):
        task.make_examples(records)
    assert '1 of 4 sequences are truncated to data.length=6 tokens' in caplog.text
    assert f'{100 * 4 / 14:.2g} % of the k-mers are unknown' in caplog.text
    caplog.clear()
    with caplog.at_level(logging.INFO):
        task.make_examples([Record('a', {'text': 'acgta', 'label': 'yes'})] * 3)
    assert not caplog.records


@pytest.mark.parametrize('text', ['', ' ', 'A'])
def test_sequence_shorter_than_a_kmer_is_rejected(word_tokenizer, text):
    task = dna.Task(dna.Config(labels=('no', 'yes'), kmer=2), LabeledConfig(length=6), word_tokenizer)
    records = [Record(f'x.csv, line {i},', {'text': t, 'label': 'yes'}) for i, t in enumerate(('ACGT', text))]
    with pytest.raises(
        UserError, match="x.csv, line 1, has a sequence in the field 'text' that is shorter than"
    ):
        task.make_examples(records)


@pytest.mark.parametrize('weights', ['pretrained', 'reinit_embeddings', 'random'])
def test_init_weights_selects_pretrained_parameters(pretrained, tmp_path, weights):
    rng = np.random.default_rng(0)
    for split in ('train', 'validation'):
        lines = [f'{"".join(rng.choice([*"ACGT"], 8))},{i % 2}' for i in range(16)]
        (tmp_path / f'{split}.csv').write_text('text,label\n' + '\n'.join(lines) + '\n')
    done = run_in_process(
        'bert_jax.bin.train', f'--config={TINY}:classify', f'--workdir={tmp_path}/run',
        f'--config.data.source={tmp_path}/{{split}}.csv', '--config.task.name=dna', f'--config.init.checkpoint={pretrained}',
        f'--config.init.weights={weights}', '--config.train.steps=1', '--config.optim.learning_rate=1e-9',
        '--config.optim.warmup=0', '--config.task.kmer=2',
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    before, after = load.read(pretrained).params, load.read(tmp_path / 'run').params
    same = {n: np.allclose(before[n], after[n], atol=1e-6) for n in after if n in before and before[n].any()}
    kernels = [n for n in same if n.endswith('kernel')]
    assert same['bert/token_embedding'] == (weights == 'pretrained')
    assert {same[n] for n in kernels} == {weights != 'random'}
    scored = run_in_process(
        'bert_jax.bin.eval_dna', f'--config={TINY}:classify', '--config.task.name=dna', f'--checkpoint={tmp_path}/run',
        f'--config.data.source={tmp_path}/{{split}}.csv', f'--out={tmp_path}/scores.json',
    )  # fmt: skip
    assert scored.returncode == 0, scored.stderr
    loss = json.loads((tmp_path / 'scores.json').read_text())['scores']['loss']
    assert loss == pytest.approx(
        metric_lines(tmp_path / 'run')[-1]['eval/loss']
    )  # with the k-mers of the checkpoint
    tokenizer = bert_jax.load(tmp_path / 'run')[1]
    assert tokenizer('ACGT')['valid'].sum() == 3 + 2, 'AC, CG, GT and two special tokens'
