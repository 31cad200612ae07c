"""Predictions for each record, mistakes, and errors in records and flags."""

import json

import pytest

from bert_jax.core.errors import UserError
from bert_jax.data.formats import Invalid
from bert_jax.data.labeled import LabeledConfig
from bert_jax.data.records import Record
from bert_jax.evals import prediction
from bert_jax.tasks import classify
from tests.runs import finetune, run_in_process


@pytest.fixture(scope='module')
def classifier(tmp_path_factory, pretrained, labeled):
    workdir = tmp_path_factory.mktemp('classifier')
    assert finetune(workdir, pretrained, labeled, 'optim.learning_rate=0.01', 'train.steps=40') == 0
    return workdir


def predict(*args):
    return run_in_process('bert_jax.bin.predict', *args)


def test_each_record_has_one_row_and_keeps_its_fields(tmp_path, classifier):
    lines = [
        '{"id": 1, "text": "the good dog"}',
        '{"text"',
        '',
        '{"body": "x"}',
        '{"text": "the bad dog", "label": "?"}',
        '{"text": " "}',
    ]
    (tmp_path / 'in.jsonl').write_bytes('\n'.join(lines).encode() + b'\n{"text": "\xe9"}\n')
    done = predict(
        f'--checkpoint={classifier}', f'--input={tmp_path / "in.jsonl"}', f'--output={tmp_path / "out.jsonl"}'
    )
    assert done.returncode == 1
    messages = ('line 2 is not JSON', "line 4, has no field 'text'", 'line 7 is not UTF-8')
    assert '3 of 6 records are invalid' in done.stderr
    assert f'empty texts: 1\n  {tmp_path / "in.jsonl"}, line 6\n' in done.stderr
    found = [json.loads(line) for line in (tmp_path / 'out.jsonl').read_text().splitlines()]
    assert [f.get('prediction') for f in found[:5]] == ['good', None, None, 'bad', found[4]['prediction']]
    for row, message in zip((found[1], found[2], found[5]), messages, strict=True):
        assert message in row['error']
        assert message in done.stderr
    assert (found[0]['id'], found[2]['body'], found[3]['label']) == (1, 'x', '?')
    for row in (found[0], found[3]):
        assert sum(row['probabilities'].values()) == pytest.approx(1, abs=1e-5)
        assert row['probability'] == row['probabilities'][row['prediction']] > 0.5


@pytest.mark.parametrize(('flags', 'expected'), [((), 'good'), (('--class_ids',), '1')])
def test_glue_format(tmp_path, classifier, flags, expected):
    (tmp_path / 'in.jsonl').write_text('{"sentence": "the good dog"}\n')
    done = predict(
        f'--checkpoint={classifier}',
        f'--input={tmp_path / "in.jsonl"}',
        f'--output={tmp_path / "new" / "SST-2.tsv"}',
        '--format=glue',
        '--config.data.text=sentence',
        *flags,
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / 'new' / 'SST-2.tsv').read_text() == f'index\tprediction\n0\t{expected}\n'


def test_worst_mistakes_are_printed(tmp_path, classifier):
    labels = ('good', 'bad', '', 'nice')  # the second is wrong, the others are not labeled
    lines = [json.dumps({'text': f'the good dog {i}', 'label': label}) for i, label in enumerate(labels)]
    (tmp_path / 'in.jsonl').write_text('\n'.join(lines))
    words = f'--checkpoint={classifier}', f'--input={tmp_path / "in.jsonl"}', '--errors=3'
    done = predict(*words, f'--output={tmp_path / "out.csv"}')
    assert done.returncode == 0, done.stderr
    assert 'records without a gold label: 2\n' in done.stderr
    head, first, text = done.stdout.splitlines()[1:]
    assert head == '1 of 2 predictions differ from the gold label.'
    assert 'in.jsonl, line 2: good instead of bad (' in first
    assert text == '    the good dog 1'
    done = predict(*words, f'--output={tmp_path / "new.csv"}', '--config.data.label=mood')
    assert 'error: --errors needs gold labels. ' in done.stderr
    assert "has no field 'mood'" in done.stderr
    assert not (tmp_path / 'new.csv').exists()


def test_most_severe_mistake_is_first():
    predictor = object.__new__(prediction.Predictor)
    data = LabeledConfig(text_pair='pair')
    predictor.task = classify.Task(classify.Config(labels=('a', 'b')), data, None)
    records = [Record(f'line {i},', {'text': f't{i}', 'pair': 'p'}) for i in range(4)]
    predictions = [{'prediction': 'a', 'probability': p} for p in (0.6, 0.9, 0.8, 0.7)]
    out = predictor.format_mistakes(records, ['b', 'b', 'a', None], predictions, 1)
    assert out.splitlines() == [
        '2 of 3 predictions differ from the gold label. The 1 worst:',
        'line 1: a instead of b (90.0%)',
        '    t1 | p',
    ]


def test_predictions_do_not_depend_on_the_batch(classifier):
    predictor = prediction.Predictor(str(classifier))
    texts = [f'the {"good" if i % 3 else "bad"} dog {"very " * (i % 7)}' for i in range(40)]
    records = [Record(f'example {i}', {'text': t}) for i, t in enumerate(texts)]
    together = predictor(records)
    for i in (0, 13, 39):
        (alone,) = predictor([records[i]])
        assert alone['prediction'] == together[i]['prediction']
        assert alone['probabilities'] == pytest.approx(together[i]['probabilities'], abs=1e-4)


def test_glue_index_counts_invalid_lines(tmp_path, classifier):
    (tmp_path / 'in.jsonl').write_text('{"text": "the good dog"}\n{\n{"text": "the bad dog"}\n')
    flags = f'--input={tmp_path / "in.jsonl"}', f'--output={tmp_path / "o.tsv"}', '--format=glue'
    done = predict(f'--checkpoint={classifier}', *flags)
    assert done.returncode == 1
    assert (tmp_path / 'o.tsv').read_text() == 'index\tprediction\n0\tgood\n2\tbad\n'


def test_output_is_kept_if_no_record_is_valid(tmp_path, classifier):
    (tmp_path / 'in.jsonl').write_text('{"body": "x"}\n')
    (tmp_path / 'o.jsonl').write_text('before')
    done = predict(
        f'--checkpoint={classifier}', f'--input={tmp_path / "in.jsonl"}', f'--output={tmp_path / "o.jsonl"}'
    )
    assert done.returncode == 1
    assert 'nothing was written' in done.stderr
    assert (tmp_path / 'o.jsonl').read_text() == 'before'


def test_records_incompatible_with_the_first_are_invalid():
    """All multiple-choice records need the same number of endings."""

    class Task:
        def make_examples(self, records, with_labels):
            if len({r.fields['n'] for r in records}) > 1:
                raise UserError(f'{records[-1].location} differs from the first.')
            return [r.fields['n'] for r in records]

    predictor = object.__new__(prediction.Predictor)
    predictor.task = Task()
    a, b, c = (Record(name, {'n': n}) for name, n in (('a', 2), ('b', 3), ('c', 2)))
    unreadable = Invalid('line 2 is not JSON.')
    checked, rows = predictor._make_examples([a, unreadable, b, c])
    assert checked == [a, unreadable, Invalid('b differs from the first.'), c]
    assert rows == [2, 2]


def test_pretrained_model_cannot_predict(pretrained):
    with pytest.raises(UserError, match="task 'mlm', which makes no predictions"):
        prediction.Predictor(str(pretrained))


@pytest.mark.parametrize(
    ('flags', 'message'),
    [
        (('--input=no.jsonl', '--output=o.jsonl'), '--input=no.jsonl does not exist'),
        (('--input=/no/x.txt', '--output=o.jsonl'), '--input=/no/x.txt does not exist'),
        (('--input=tests', '--output=o.jsonl'), '--input=tests is a folder'),
        (('--question=why?', '--context=README.md'), 'cannot answer questions'),
        (('--input=x.jsonl',), '--input and --output need each other'),
        (('--input=README.md', '--output=o.jsonl'), "'README.md' has an unknown format"),
        (('--input=glue/sst2', '--output=o.txt'), '--output=o.txt has an unknown format'),
        (('--input=glue/sst2', '--output=o.json'), 'set --format to glue or squad'),
        (('--input={existing}', '--output={existing}'), 'would overwrite --input'),
        (('--input={existing}*', '--output={existing}'), 'would overwrite --input'),
        (('--question=why?', '--context=README.md', '--errors=3'), '--errors and --format need --input'),
        (('--input=README.md', '--output=o.jsonl', '--class_ids'), '--class_ids needs --format=glue'),
        (('--input={records}', '--output=o.json', '--format=squad'), 'can only hold answers to questions'),
        (('--input={existing}', '--output=o.jsonl'), 'has no records'),
    ],
)
def test_invalid_flags_raise(tmp_path, classifier, flags, message):
    existing = tmp_path / 'empty.jsonl'
    existing.write_text('')
    records = tmp_path / 'records.jsonl'
    records.write_text('{"text": "a"}')
    flags = (flag.format(existing=existing, records=records) for flag in flags)
    done = predict(f'--checkpoint={classifier}', *flags)
    assert done.returncode != 0
    assert message in done.stderr
    assert 'Traceback' not in done.stderr
