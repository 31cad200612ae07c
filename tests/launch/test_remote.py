"""Launchers for remote machines, with fake `gcloud`, `ssh` and `scp` commands that run everything on this machine."""

import json
import os
import pathlib
import shutil
import sys

import pytest

from tests.runs import ROOT, run_in_process

WORDS = [
    '--config=configs/quickstart.py:pretrain',
    '--workdir=runs/a b',
    '--config.data.rows_dir=it\'s "$HOME" `id` \\\\',
]
# A machine is a folder. Commands run in it, with a fake `python` that only records its arguments.
PYTHON = """#!/usr/bin/env python3
import json, os, pathlib, sys
home = pathlib.Path(os.environ['MACHINES'])
if sys.argv[1:3] != ['-m', 'bert_jax.bin.train']:
    print('1.2.3')
    sys.exit(0)
with (home / 'trained.jsonl').open('a') as file:
    file.write(json.dumps(sys.argv[3:]) + '\\n')
left = (home / 'statuses').read_text().split()
(home / 'statuses').write_text(' '.join(left[1:]))
sys.exit(int(left[0]) if left else 0)
"""
GCLOUD = """#!/usr/bin/env python3
import os, pathlib, subprocess, sys
home, words = pathlib.Path(os.environ['MACHINES']), sys.argv[1:]
kind, verb = words[2:4]
with (home / 'verbs').open('a') as file:
    file.write(verb + '\\n')
if verb == 'describe':
    states = (home / 'states').read_text().split()
    print(states[0].replace('NONE', ''))
    (home / 'states').write_text(' '.join(states[1:] or states))
if verb == 'ssh':
    (command,) = [w.removeprefix('--command=') for w in words if w.startswith('--command=')]
    sys.exit(subprocess.run(['bash', '-c', command], cwd=home / 'worker').returncode)
if verb == 'scp':
    source, target = words[5:7]
    if target.endswith(':'):
        subprocess.run(['cp', source, home / 'worker'], check=True)
    else:
        (home / 'fetched').write_text(source + ' ' + target)
"""
SSH = """#!/usr/bin/env python3
import os, pathlib, subprocess, sys
words = [w for w in sys.argv[1:] if w != '-tt']
sys.exit(subprocess.run(['bash', '-c', words[1]], cwd=pathlib.Path(os.environ['MACHINES']) / 'worker').returncode)
"""
SCP = """#!/usr/bin/env python3
import os, subprocess, sys
subprocess.run(['cp', sys.argv[2], os.environ['MACHINES'] + '/worker'], check=True)
"""


@pytest.fixture
def machines(tmp_path, monkeypatch):
    """A folder with one machine, and the fake commands on the PATH."""
    tools = tmp_path / 'tools'
    for name, text in (
        ('python', PYTHON),
        ('gcloud', GCLOUD),
        ('ssh', SSH),
        ('scp', SCP),
        ('python3.12', PYTHON),
    ):
        tools.mkdir(exist_ok=True)
        (tools / name).write_text(text.replace('/usr/bin/env python3', sys.executable))
        (tools / name).chmod(0o755)
    (tmp_path / 'worker').mkdir()
    (tmp_path / 'statuses').write_text('')
    (tmp_path / 'states').write_text('ACTIVE')
    monkeypatch.setenv('PATH', f'{tools}:{os.environ["PATH"]}')
    monkeypatch.setenv('MACHINES', str(tmp_path))
    return tmp_path


def launch(script, *words):
    return run_in_process(ROOT / 'launch' / script, *words)


def copy_project(machines: pathlib.Path):
    """Copy the project with an empty launch/env.sh, since this machine needs no installation."""
    folder = machines / 'project' / 'launch'
    folder.mkdir(parents=True)
    for name in ('remote.py', 'tpu.py', 'ssh.py'):
        (folder / name).write_text((ROOT / 'launch' / name).read_text())
    (folder / 'env.sh').write_text('')
    (folder.parent / 'bert_jax').symlink_to(ROOT / 'bert_jax')
    shutil.copytree(ROOT / 'configs', folder.parent / 'configs', ignore=shutil.ignore_patterns('*.png'))
    for name in ('requirements.txt', 'pyproject.toml', 'README.md'):
        (folder.parent / name).write_text('')
    return folder


def read_trainings(machines):
    """The arguments of each training."""
    return [json.loads(line) for line in (machines / 'trained.jsonl').read_text().splitlines()]


TPU = ['--name=t', '--zone=z', '--type=v5litepod-8', '--poll=0.01']


def test_preempted_tpu_is_requested_again_with_the_same_arguments(machines):
    (machines / 'states').write_text('NONE WAITING_FOR_RESOURCES ACTIVE SUSPENDED PROVISIONING ACTIVE ACTIVE')
    (machines / 'statuses').write_text('255 75 0')  # preempted, stopped, finished
    script = copy_project(machines) / 'tpu.py'
    done = launch(script, *TPU, '--fetch=here', '--', *WORDS)
    assert done.returncode == 0, done.stderr
    assert read_trainings(machines) == [WORDS] * 3
    verbs = (machines / 'verbs').read_text().split()
    assert [v for v in verbs if v in ('create', 'delete')] == ['create', 'delete', 'create', 'delete']
    assert 'the TPU was preempted' in done.stderr
    assert (machines / 'fetched').read_text() == 't:bert_jax/runs/a b here'


def test_failing_training_keeps_the_tpu(machines):
    (machines / 'statuses').write_text('1')
    done = launch(copy_project(machines) / 'tpu.py', *TPU, '--fetch=here', '--', *WORDS)
    assert done.returncode == 1
    assert 'exited with status 1' in done.stderr
    assert 'delete' not in (machines / 'verbs').read_text()


def test_pending_request_is_reused(machines):
    (machines / 'states').write_text('WAITING_FOR_RESOURCES PROVISIONING ACTIVE')
    done = launch(copy_project(machines) / 'tpu.py', *TPU, '--keep', '--', *WORDS)
    assert done.returncode == 0, done.stderr
    assert not {'create', 'delete'} & {*(machines / 'verbs').read_text().split()}


def test_run_must_outlive_the_tpu(machines):
    for more in ([], ['--bucket=b']):  # which is for data
        done = launch('tpu.py', *TPU, *more, '--', *WORDS)
        assert done.returncode == 2
        assert 'the run would be deleted together with the TPU' in done.stderr
    assert not (machines / 'verbs').exists()


def test_print_runs_nothing(machines):
    words = [WORDS[0], '--workdir=gs://b/x']
    done = launch('tpu.py', *TPU, '--spot', "--bucket=b 'x", '--print', '--', *words)
    assert done.returncode == 0
    assert not (machines / 'verbs').exists()
    for part in ('create t --zone=z', '--spot', 'gcsfuse', 'ssh t', '--workdir=gs://b/x', 'delete t'):
        assert part in done.stdout
    done = launch(
        'tpu.py', *TPU, '--fetch=here', '--print', '--', *words, '--config.data.rows_dir=gs://b/rows'
    )
    assert 'gcloud storage cp --recursive gs://b/x here' in done.stdout
    assert 'gcsfuse' not in done.stdout
    assert 'rows' not in done.stderr  # a path in a bucket need not be sent
    done = launch('ssh.py', '--hosts=u@a,u@b', '--print', '--', *WORDS)
    assert '--coordinator=a:1234 --processes=2 --process=1' in done.stdout
    assert not (machines / 'trained.jsonl').exists()


def test_killed_process_is_a_failure(machines):
    (machines / 'tools' / 'ssh').write_text('#!/bin/sh\n[ "$1" != -tt ] || kill -9 $$\n')
    launched = copy_project(machines) / 'ssh.py'
    assert launch(launched, '--hosts=u@a', '--', *WORDS).returncode == 1
    assert 'contains an empty host name' in launch(launched, '--hosts=a,,b', '--', *WORDS).stderr


def test_hosts_get_the_coordinator_and_a_process_index(machines):
    done = launch(copy_project(machines) / 'ssh.py', '--hosts=u@a,u@b', '--', *WORDS)
    assert done.returncode == 0, done.stderr
    found = sorted(read_trainings(machines))
    assert found == [[*WORDS, '--coordinator=a:1234', '--processes=2', f'--process={i}'] for i in range(2)]


def test_paths_are_sent_to_the_same_place(machines):
    script, elsewhere = copy_project(machines) / 'ssh.py', machines / 'elsewhere'
    data = script.parents[1] / 'data' / 'train.txt'
    for file in (data, elsewhere / 'config.py'):
        file.parent.mkdir()
    data.write_text('text')
    text = 'from configs import quickstart\ndef get_config(): return quickstart.get_config("pretrain")'
    (elsewhere / 'config.py').write_text(text)
    (elsewhere / 'config.py').rename(elsewhere / 'link')
    (elsewhere / 'config.py').symlink_to('link')
    words = [f'--config={elsewhere}/config.py', '--workdir=w', '--config.data.sources=data/{split}.txt']
    done = launch(
        script, '--hosts=u@a', f'--send={elsewhere}/config.py', '--send=data/{split}.txt', '--', *words
    )
    assert done.returncode == 0, done.stderr
    assert 'Not sent' not in done.stderr
    assert (machines / 'worker/bert_jax/data/train.txt').read_text() == 'text'
    assert (elsewhere / 'config.py').read_text() == text
    assert not (elsewhere / 'config.py').is_symlink()


def test_inputs_that_are_not_sent_are_named(machines):
    script = copy_project(machines) / 'ssh.py'
    (script.parents[1] / 'a text.txt').touch()
    words = [*WORDS[:2], '--config.data.sources=("de=a text.txt", "en=wiki40b/en", "fr=pydocs/text")']
    words += ['--config.tokenizer.path=bucket/vocab.txt', '--config.data.rows_dir=rows']
    done = launch(script, '--hosts=u@a', '--print', '--', *words)
    assert done.returncode == 0, done.stderr
    assert done.stderr.splitlines()[1:] == [
        '  tokenizer.path=bucket/vocab.txt: It is not on this machine.',
        "  data.sources=a text.txt: Copy it with --send='a text.txt'.",
        '  data.sources=wiki40b/en: a TFDS data set. Prepare it there with python -m bert_jax.bin.download wiki40b/en',
    ]
    (script.parents[1] / 'rows').mkdir()
    done = launch(script, '--hosts=u@a', '--print', '--', *words)
    assert '  data.rows_dir=rows: Copy it with --send=rows.' in done.stderr
    done = launch(script, '--hosts=u@a', '--send=nothing', '--', *WORDS)
    assert done.stderr == 'error: --send=nothing does not exist. Set it to a file, a folder or a glob.\n'


def test_files_are_compared_to_find_what_is_not_sent(machines):
    script = copy_project(machines) / 'ssh.py'
    reviews = script.parents[1] / 'reviews'
    reviews.mkdir()
    for name in ('train.csv', 'validation.csv', 'test.csv'):
        (reviews / name).write_text('text,label\na,b\n')
    words = ['--config=configs/finetune/classify.py:reviews/{split}.csv', '--workdir=w']

    def unsent(*send):
        return launch(script, '--hosts=u@a', '--print', *send, '--', *words).stderr

    assert 'reviews' not in unsent('--send=reviews/*.csv')
    assert 'reviews' not in unsent('--send=reviews/train.csv', '--send=reviews/validation.csv')
    advice = "  data.source=reviews/{split}.csv: Copy it with --send='reviews/{split}.csv'."
    assert advice in unsent('--send=reviews/t*.csv').splitlines()  # without the evaluation split


def test_file_of_words_is_not_sent(machines):
    script = copy_project(machines) / 'ssh.py'
    (script.parents[1] / 'words.txt').write_text('word\n')
    words = [*WORDS[:2], '--config.task.whole_word_masking=true']
    for segmenter, is_named in (('words.txt', True), ('jieba', False)):
        done = launch(script, '--hosts=u@a', '--print', '--', *words, f'--config.task.segmenter={segmenter}')
        assert done.returncode == 0, done.stderr
        assert ('  task.segmenter=words.txt: Copy it with --send=words.txt.' in done.stderr) == is_named


@pytest.mark.parametrize(
    ('kind', 'workdir', 'message'),
    [
        ('v5litepod-16', 'runs/x', 'has several workers, which all write to --workdir. Set --workdir=gs://'),
        ('v4-32', 'runs/x', 'has several workers'),
        ('v4-8', 'runs/x', ''),
        ('v5litepod-16', 'gs://b/x', ''),
        ('v5litpod-8', 'gs://b/x', "unknown generation 'v5litpod': did you mean 'v5litepod'?"),
        ('v5e-8', 'gs://b/x', "unknown generation 'v5e': did you mean 'v5litepod'?"),
        ('v6e', 'gs://b/x', 'has no size. Write one after the generation, as in v6e-8.'),
    ],
)
def test_type_is_checked(kind, workdir, message):
    words = ['--name=t', '--zone=z', f'--type={kind}', '--fetch=x', '--print', '--']
    done = launch('tpu.py', *words, WORDS[0], f'--workdir={workdir}')
    assert done.returncode == (1 if message else 0), done.stderr
    assert message in done.stderr
    assert bool(done.stdout) == (not message)


@pytest.mark.parametrize('script', ['tpu.py', 'ssh.py'])
@pytest.mark.parametrize(
    ('words', 'message'),
    [
        ([], 'the following arguments are required: --config'),
        (['--config=configs/nope.py'], 'error: The config file'),
        ([WORDS[0], '--config.train.stesp=3'], "did you mean 'steps'?"),
        ([WORDS[0], '--steps=3'], "unknown argument '--steps=3'"),
        (['--config=../x.py'], 'error: --config=../x.py is outside the project'),
        ([f'--config={ROOT}/configs/quickstart.py:pretrain'], 'is outside the project'),
    ],
)
def test_invalid_training_uses_no_machine(script, words, message, machines):
    own = [*TPU, '--fetch=here'] if script == 'tpu.py' else ['--hosts=u@a']
    done = launch(script, *own, '--', '--workdir=runs/x', *words)
    assert done.returncode in (1, 2)
    assert message in done.stderr.splitlines()[-1]
    assert not done.stdout
    assert not (machines / 'verbs').exists()
    assert not [*(machines / 'worker').iterdir()]


@pytest.mark.parametrize('words', [[], ['--']])
def test_missing_training_arguments_are_an_error(words):
    done = launch('tpu.py', *TPU, *words)
    assert done.returncode == 1
    assert 'after two dashes' in done.stderr
