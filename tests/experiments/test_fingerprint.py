"""Fingerprints: which changes of configs, checkpoints and files are found, and how they are described."""

import json
import os
import shutil

import pytest

from bert_jax.experiments import fingerprint
from tests.runs import ROOT, TINY

CLASSIFY, PRETRAIN = f'{TINY}:classify', f'{TINY}:pretrain'
CONFIG = """
import runpy

def get_config():
    config = runpy.run_path({tiny!r})['get_config']('classify')
    config.optim.learning_rate = {rate}
    return config
"""


def find_changes(before, *job):
    """Compare with what a job depends on now; `before` is stored as JSON, as in the record of a job."""
    return fingerprint.describe_changes(json.loads(json.dumps(before)), fingerprint.read(*job))


def write_checkpoint(workdir, step, manifest='a', **metadata):
    """Write the metadata of a checkpoint, and the list of its parameter files."""
    folder = workdir / 'checkpoints' / str(step)
    for name, text in (
        ('metadata/metadata', json.dumps({'step': step, 'config': {'data': {}}, **metadata})),
        ('params/manifest.ocdbt', manifest),
    ):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


def test_edited_config_file_is_a_change(tmp_path):
    file = tmp_path / 'config.py'
    file.write_text(CONFIG.format(tiny=str(TINY), rate=5e-5))
    before = fingerprint.read(str(file), ('train.seed=1',))
    assert find_changes(before, str(file), ('train.seed=1',)) == []
    file.write_text(CONFIG.format(tiny=str(TINY), rate=3e-5))
    os.utime(file, (1, 1))  # Python compares the time of a file in seconds
    assert find_changes(before, str(file), ('train.seed=1',)) == ['optim.learning_rate was 5e-05, is 3e-05']


def test_equal_values_in_other_words_are_no_change():
    before = fingerprint.read(CLASSIFY, ('optim.learning_rate=3e-4', 'train.steps=9'))
    assert find_changes(before, CLASSIFY, ('train.steps=9', 'optim.learning_rate=0.0003')) == []


@pytest.mark.parametrize(
    'setting', ['mesh.strategy=fsdp', 'train.log_every=7', 'data.workers=3', 'data.rows_dir=elsewhere']
)
def test_settings_without_effect_on_the_numbers_are_no_change(setting):
    before = fingerprint.read(PRETRAIN, ())
    assert find_changes(before, PRETRAIN, (setting,)) == []
    assert find_changes(before, PRETRAIN, ('data.length=16',)) == ['data.length was 32, is 16']


def test_new_setting_with_its_default_is_no_change():
    before = fingerprint.read(CLASSIFY, ())
    del before['configs']['']['train']['phases']
    assert find_changes(before, CLASSIFY, ()) == []


def test_evaluation_does_not_depend_on_the_training(tmp_path):
    write_checkpoint(tmp_path, 5)
    before = fingerprint.read(CLASSIFY, (), str(tmp_path))
    settings = ('optim.learning_rate=1', 'train.steps=2', 'train.eval_rows=3')
    assert find_changes(before, CLASSIFY, settings, str(tmp_path)) == ['train.eval_rows was 0, is 3']


def test_retrained_checkpoint_is_a_change(tmp_path):
    write_checkpoint(tmp_path, 1000, scores={'loss': 0.5})
    job = CLASSIFY, (f'init.checkpoint={tmp_path}',)
    before = fingerprint.read(*job)
    assert find_changes(before, *job) == []
    write_checkpoint(tmp_path, 1000, scores={'loss': 0.6})
    assert find_changes(before, *job) == [f'the checkpoint, step 1000 of {tmp_path}, has been replaced']
    write_checkpoint(tmp_path, 2000)
    assert find_changes(before, *job) == [
        f'the checkpoint was step 1000 of {tmp_path}, is step 2000 of {tmp_path}'
    ]
    assert find_changes(before, CLASSIFY, ()) == [f'the checkpoint was step 1000 of {tmp_path}, is none']


def test_checkpoint_with_the_same_metadata_may_have_other_parameters(tmp_path):
    write_checkpoint(tmp_path, 0, manifest='a')  # a converted model has no scores
    before = fingerprint.read(CLASSIFY, (), str(tmp_path))
    write_checkpoint(tmp_path, 0, manifest='b')
    os.utime(tmp_path / 'checkpoints/0/metadata/metadata', (1, 1))
    assert find_changes(before, CLASSIFY, (), str(tmp_path)) == [
        f'the checkpoint, step 0 of {tmp_path}, has been replaced'
    ]


def test_copied_or_deleted_checkpoint_is_no_change(tmp_path):
    write_checkpoint(tmp_path / 'a', 5)
    before = fingerprint.read(CLASSIFY, (f'init.checkpoint={tmp_path}/a',))
    shutil.copytree(tmp_path / 'a', tmp_path / 'b')
    assert find_changes(before, CLASSIFY, (f'init.checkpoint={tmp_path}/b',)) == []
    shutil.rmtree(tmp_path / 'a')
    assert find_changes(before, CLASSIFY, (f'init.checkpoint={tmp_path}/a',)) == []


@pytest.mark.parametrize('checkpoint', ['', 'runs/x'])
def test_corrected_label_is_a_change(tmp_path, checkpoint):
    job = CLASSIFY, (f'data.source={tmp_path}/{{split}}.jsonl',), checkpoint
    for split in ('train', 'validation'):
        (tmp_path / f'{split}.jsonl').write_text('{"text": "a", "label": 0}\n')
    before = fingerprint.read(*job)
    file = tmp_path / 'validation.jsonl'
    file.write_text('{"text": "a", "label": 1}\n')  # of the same size
    os.utime(file, (1, 1))
    assert find_changes(before, *job) == [f'the file {file} has changed']
    file.write_text('{"text": "a", "label": 0}\n')
    os.utime(file, (2, 2))  # as after copying
    assert find_changes(before, *job) == []
    (tmp_path / 'train.jsonl').write_text('{"text": "b", "label": 0}\n')
    os.utime(tmp_path / 'train.jsonl', (1, 1))
    changes = [] if checkpoint else [f'the file {tmp_path}/train.jsonl has changed']
    assert find_changes(before, *job) == changes, 'an evaluation does not read the training examples'
    for split in ('train', 'validation'):
        (tmp_path / f'{split}.jsonl').unlink()
    assert find_changes(before, *job) == [], 'results may be copied without their data'


def test_text_of_another_size_is_a_change(tmp_path):
    job = PRETRAIN, (f'data.sources=en={tmp_path}/*.txt',)
    (tmp_path / 'a.txt').write_text('one')
    before = fingerprint.read(*job)
    (tmp_path / 'a.txt').write_text('three')
    (tmp_path / 'b.txt').write_text('new')
    assert find_changes(before, *job) == [f'the file {tmp_path}/{name}.txt has changed' for name in 'ab']


def test_study_depends_on_its_flags_configs_and_texts(tmp_path):
    text, config = tmp_path / 'de.txt', tmp_path / 'config.py'
    text.write_text('eins')
    config.write_text(CONFIG.format(tiny=str(TINY), rate=5e-5))
    write_checkpoint(tmp_path, 5, config={'data': {'sources': [f'{tmp_path}/corpus.txt']}})
    (tmp_path / 'corpus.txt').write_text('one')
    flags = ('limit=50', f'text=de={text}', f'target_config={config}')
    before = fingerprint.read('bin/study_x.py', flags, str(tmp_path))
    assert find_changes(before, 'bin/study_x.py', flags, str(tmp_path)) == []
    text.write_text('zwei')
    os.utime(text, (1, 1))
    (tmp_path / 'corpus.txt').write_text('three')
    config.write_text(
        CONFIG.format(tiny=str(TINY), rate=5e-5).replace(
            'config.optim', 'config.data.limit = 9\n    config.optim'
        )
    )
    assert find_changes(before, 'bin/study_x.py', ('limit=60', *flags[1:]), str(tmp_path)) == [
        "limit was '50', is '60'",
        'target_config: data.limit was 0, is 9',
        f'the file {text} has changed',
        f'the file {tmp_path}/corpus.txt has changed',
    ]


def test_language_evaluation_depends_on_its_settings_and_texts(tmp_path):
    pairs = tmp_path / 'pairs.jsonl'
    pairs.write_text('one')
    write_checkpoint(tmp_path, 5, config={'data': {'sources': [f'{tmp_path}/corpus.txt']}})
    (tmp_path / 'corpus.txt').write_text('one')
    job = (
        f'{ROOT}/configs/eval/lm.py:blimp',
        ('eval.limit=50', f'eval.source={tmp_path}/*.jsonl'),
        str(tmp_path),
    )
    before = fingerprint.read(*job)
    assert find_changes(before, *job) == []
    earlier = json.loads(json.dumps(before))
    del earlier['configs']['']['eval']['likelihood']
    assert find_changes(earlier, *job) == [], 'a new setting with its default is no change'
    pairs.write_text('two')
    os.utime(pairs, (1, 1))
    (tmp_path / 'corpus.txt').write_text('three')
    assert find_changes(before, job[0], ('eval.limit=60', job[1][1]), str(tmp_path)) == [
        'eval.limit was 50, is 60',
        f'the file {pairs} has changed',
        f'the file {tmp_path}/corpus.txt has changed',
    ]
