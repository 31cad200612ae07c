"""The evaluation commands, the report, fill_mask and `load`, on a trained run."""

import argparse
import json
import re
import shutil

import jax.numpy as jnp
import numpy as np
import pytest

import bert_jax
from bert_jax.core.errors import UserError
from bert_jax.evals import fill_mask, prediction, scoring
from bert_jax.experiments import runs
from tests.runs import LENGTH_BUCKETS, TINY, finetune, metric_lines, run_in_process


def test_in_loop_evaluation_equals_the_command(tmp_path, finetuned, labeled):
    out = tmp_path / 'scores.json'
    words = (f'--config={TINY}:classify', f'--config.data.source={labeled}', f'--checkpoint={finetuned}')
    done = run_in_process('bert_jax.bin.eval_classify', *words, f'--config.{LENGTH_BUCKETS}', f'--out={out}')
    assert done.returncode == 0, done.stderr
    result = json.loads(out.read_text())
    in_loop = {
        k.removeprefix('eval/'): v for k, v in metric_lines(finetuned)[-1].items() if k.startswith('eval/')
    }
    assert in_loop
    assert {k: v for k, v in result['scores'].items() if isinstance(v, float)} == in_loop
    assert result['rows'] == 21  # not a multiple of the batch size, 16
    assert np.sum(result['scores']['confusion']) == 21
    assert re.search(r'^\s+bad\s+\d+\s+\d+$', done.stdout, re.MULTILINE)


def test_task_is_learned(finetuned, labeled):
    scores = scoring.Scorer(f'{TINY}:classify', [f'data.source={labeled}'], 'classify')(finetuned)['scores']
    assert scores['accuracy'] == 1.0
    assert scores['majority'] < 0.8


def test_scores_are_independent_of_batch_size_and_mesh(finetuned, labeled):
    base = scoring.Scorer(f'{TINY}:classify', [f'data.source={labeled}'], 'classify')(finetuned)['scores']
    other = scoring.Scorer(
        f'{TINY}:classify',
        [f'data.source={labeled}', 'train.eval_batch_size=8', 'mesh.strategy=fsdp'],
        'classify',
    )(finetuned)['scores']
    assert other.pop('confusion') == base.pop('confusion')
    assert other == pytest.approx(base, rel=1e-5)


def test_pooling_of_the_task_belongs_to_the_model(tmp_path, pretrained, labeled):
    settings = ('task.pooling=mean', 'train.steps=3', 'train.eval_every=0')
    assert finetune(tmp_path, pretrained, labeled, *settings) == 0
    assert bert_jax.load(tmp_path)[0].config.pooling == 'mean'
    scores = scoring.Scorer(f'{TINY}:classify', [f'data.source={labeled}'], 'classify')(tmp_path)['scores']
    assert scores['loss'] == pytest.approx(metric_lines(tmp_path)[-1]['eval/loss'], rel=1e-6)
    with pytest.raises(UserError, match="was trained with task.pooling='mean'. Omit --config.task.pooling"):
        prediction.Predictor(tmp_path, ['task.pooling=cls'])


def test_settings_of_the_checkpoint_cannot_be_changed(finetuned, labeled):
    def score(labels):
        overrides = [f'data.source={labeled}', f'task.labels={labels}']
        return scoring.Scorer(f'{TINY}:classify', overrides, 'classify')(finetuned)

    assert score(('bad', 'good'))['rows'] == 21
    with pytest.raises(
        UserError, match="was trained with task.labels=.'bad', 'good'.. Omit --config.task.labels"
    ):
        score(('good', 'bad'))


def test_watch_stops_after_the_last_checkpoint(finetuned):
    seen = list(scoring.watch_checkpoints(finetuned, poll=0.01, timeout=1))
    assert [p.name for p in seen] == ['60']


def test_watch_skips_a_checkpoint_that_is_deleted_while_it_is_read(tmp_path, finetuned, monkeypatch):
    shutil.copytree(finetuned, run := tmp_path / 'run')
    shutil.copytree(run / 'checkpoints/60', deleted := run / 'checkpoints/59')
    steps = [deleted, run / 'checkpoints/60']
    monkeypatch.setattr(scoring, 'watch_checkpoints', lambda *_: iter(steps))
    scored = []

    class Scorer:
        def __call__(self, path):
            if path == deleted:
                shutil.rmtree(path)
                scoring.checkpoint.read_metadata(path)
            scored.append(path.name)
            return {'step': 60, 'source': '', 'split': '', 'rows': 2, 'scores': {}}

        def format_scores(self, scores):
            return ''

    flags = argparse.Namespace(
        out=tmp_path / 'scores.json', checkpoint=run, coordinator='', processes=1, process=0, watch=True,
        poll=0, timeout=0,
    )  # fmt: skip
    assert scoring.score_checkpoints(Scorer, flags) == 0
    assert scored == ['60']


def test_pretrained_model_cannot_be_scored_as_classifier(pretrained, labeled):
    with pytest.raises(UserError, match="trained on the task 'mlm'"):
        scoring.Scorer(f'{TINY}:classify', [f'data.source={labeled}'], 'classify')(pretrained)


def test_random_weights_keep_only_shape_and_tokenizer(tmp_path, pretrained, labeled, finetuned):
    options = ('optim.learning_rate=0.0', 'train.steps=1', 'optim.warmup=0', 'optim.weight_decay=0.0')
    for name, weights in (('a', 'pretrained'), ('b', 'random')):
        finetune(tmp_path / name, pretrained, labeled, f'init.weights={weights}', *options)
    before, _ = bert_jax.load(pretrained)
    kept, _ = bert_jax.load(tmp_path / 'a')
    fresh, _ = bert_jax.load(tmp_path / 'b')
    name = 'bert/token_embedding'
    np.testing.assert_array_equal(kept.params[name], before.params[name])
    assert fresh.params[name].shape == before.params[name].shape
    assert not np.array_equal(fresh.params[name], before.params[name])


def test_other_lengths_than_in_training_are_named(finetuned, labeled, caplog):
    settings = [f'data.source={labeled}', 'data.length=16']
    with caplog.at_level('INFO'):
        scoring.Scorer(f'{TINY}:classify', settings, 'classify').load_evaluator(finetuned)
    assert 'data.length is 16 here, and was 32 in training' in caplog.text


def test_head_is_reinitialized_for_other_classes(tmp_path, finetuned):
    """As when a model fine-tuned on MNLI, with three classes, is fine-tuned on RTE, with two."""
    for split in ('train', 'validation'):
        lines = [{'text': f'the {split} dog {label}', 'label': label} for label in 'abc'] * 6
        (tmp_path / f'{split}.jsonl').write_text('\n'.join(map(json.dumps, lines)))
    options = ('optim.learning_rate=0.0', 'train.steps=1', 'optim.warmup=0', 'optim.weight_decay=0.0')
    assert finetune(tmp_path / 'run', finetuned, tmp_path / '{split}.jsonl', *options) == 0
    before, _ = bert_jax.load(finetuned)
    after, _ = bert_jax.load(tmp_path / 'run')
    assert before.params['classifier/kernel'].shape[1] == 2
    assert after.params['classifier/kernel'].shape[1] == 3
    for name in ('bert/token_embedding', 'bert/pooler/kernel'):
        np.testing.assert_array_equal(after.params[name], before.params[name])


def test_single_file_can_be_scored(tmp_path, finetuned):
    (tmp_path / 'mine.jsonl').write_text('{"text": "the good dog", "label": "good"}\n' * 3)
    scorer = scoring.Scorer(f'{TINY}:classify', [f'data.source={tmp_path}/mine.jsonl'], 'classify')
    result = scorer(finetuned)
    assert result['rows'] == 3
    assert result['scores']['accuracy'] == 1.0


@pytest.mark.parametrize('source', ['mine.jsonl', '{split}.jsonl'])
def test_scored_file_is_called_by_its_name(tmp_path, finetuned, source, monkeypatch):
    monkeypatch.chdir(tmp_path)
    file = source.format(split='validation')
    (tmp_path / file).write_text('{"text": "the good dog", "label": "good"}\n' * 3)
    done = run_in_process(
        'bert_jax.bin.eval_classify', f'--config={TINY}:classify', f'--checkpoint={finetuned}',
        f'--config.data.source={source}', '--out=scores.json',
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert f', {file}, 3 rows\n' in done.stdout
    (scored,) = runs._read_eval_files(tmp_path)
    assert scored.name == file


def test_too_long_rows_are_found_before_the_data_is_read(finetuned):
    scorer = scoring.Scorer(f'{TINY}:classify', ['data.source=nowhere.jsonl', 'data.length=65'], 'classify')
    with pytest.raises(UserError, match=r'the 64 positions of the model\. Lower data\.length to 64 or'):
        scorer(finetuned)


def test_loaded_model_returns_hidden_states_pooled_and_logits(pretrained, finetuned):
    model, tokenizer = bert_jax.load(pretrained)
    ids = tokenizer.encode(['the dog runs'])[0]
    tokens = jnp.asarray([[tokenizer.cls, *ids, tokenizer.sep]])
    out = model(tokens, jnp.zeros_like(tokens))
    assert [h.shape for h in out.hidden_states] == [(1, tokens.shape[1], 32)] * 3
    assert out.pooled.shape == (1, 32)
    assert out.logits.shape[:2] == tokens.shape
    classifier, _ = bert_jax.load(finetuned / 'checkpoints' / '60')
    assert classifier(tokens).logits.shape == (1, 2)


def test_fill_mask_prints_tokens_and_probabilities(pretrained):
    done = run_in_process(
        'bert_jax.bin.fill_mask',
        f'--checkpoint={pretrained}',
        '--top=3',
        'the [MASK] runs',
        'a [MASK] [MASK]',
    )
    assert done.returncode == 0, done.stderr
    assert len(re.findall(r'mask \d:(?: +\S+ \d+\.\d%){3}', done.stdout)) == 3


def test_text_that_cannot_be_filled_does_not_stop_the_others(pretrained):
    texts = 'no mask', 'the [MASK] runs', 'the ' * 100 + '[MASK]'
    done = run_in_process('bert_jax.bin.fill_mask', f'--checkpoint={pretrained}', *texts)
    assert done.returncode == 1
    assert done.stdout.count('mask 1:') == 1
    assert "'no mask' has no [MASK]" in done.stderr
    assert 'tokens, but the model reads at most 64. Shorten the text.' in done.stderr


def test_tokens_of_a_fake_language_are_marked(bilingual):
    ((mask,),) = fill_mask.fill(str(bilingual), ['the [MASK] runs'], top=10_000)
    names = [token for token, _ in mask]
    real = [name for name in names if not name.startswith('~')]
    assert sorted(names) == sorted([*real, *(f'~{name}' for name in real)])
    assert names.count('[UNK]') == 1


def test_either_name_of_the_mask_is_accepted(pretrained):
    first, second = fill_mask.fill(str(pretrained), ['the [MASK] runs', 'the <mask> runs'])
    assert first == second


def test_fill_mask_needs_a_mask_and_a_masked_language_model(pretrained, finetuned):
    with pytest.raises(UserError, match=r'no \[MASK\]'):
        fill_mask.fill(str(pretrained), ['nothing hidden'])
    with pytest.raises(UserError, match='not a masked language model'):
        fill_mask.fill(str(finetuned), ['a [MASK]'])


def test_report_contains_curves_scores_and_masks(tmp_path, pretrained, finetuned):
    out = tmp_path / 'report.html'
    done = run_in_process(
        'bert_jax.bin.report', str(pretrained), str(finetuned), f'--out={out}', '--fill=the [MASK] runs'
    )
    assert done.returncode == 0, done.stderr
    page = out.read_text()
    assert page.count('data:image/png;base64,') == 2
    assert 'the [MASK] runs' in page
    last = metric_lines(finetuned)[-1]['eval/accuracy']
    assert f'{last:.4f}' in page
    assert 'http' not in page.replace('charset', '')


def test_report_needs_a_run(tmp_path):
    with pytest.raises(UserError, match='There is no run'):
        runs.find(tmp_path)
