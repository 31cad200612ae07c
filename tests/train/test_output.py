"""What a training run prints: in a log file, on a terminal, and with --verbose."""

import contextlib
import io
import re
import types

import pytest

from bert_jax.data import sources
from tests.runs import TINY, pretrain, run_in_process

SHORT = ('train.steps=4', 'train.eval_every=2', 'train.log_every=1', 'optim.warmup=0')
LINES = [
    r'training [\d,]+ parameters for 4 steps on mesh data=8 fsdp=1 tensor=1',
    r'evaluating on \d+ rows',
    r'step 1/4  loss \d\.\d{4}  mlm_accuracy \d\.\d{4}',
    r'step [234]/4  loss .* left  .* tokens/s  MFU .*%',
    r'step [24]  evaluation  loss \d\.\d{4}  mlm_loss .*',
]


@pytest.fixture
def run_train(tmp_path, corpus, rows):
    def run(*flags):
        data = (f'--config.data.sources={corpus}', f'--config.data.rows_dir={rows}')
        overrides = (f'--config.{override}' for override in SHORT)
        arguments = (f'--config={TINY}:pretrain', f'--workdir={tmp_path / "run"}', *data, *overrides, *flags)
        return run_in_process('bert_jax.bin.train', *arguments)

    return run


def test_log_file_has_only_expected_lines(run_train):
    done = run_train()
    assert (done.returncode, done.stdout) == (0, '')
    lines = done.stderr.splitlines()
    for line in lines:
        assert any(re.fullmatch(pattern, line) for pattern in LINES), line
    for pattern in (*LINES[:3], 'step 4/4 .*', LINES[4]):
        assert any(re.fullmatch(pattern, line) for line in lines), pattern


def test_verbose_prints_table_of_parameters(run_train):
    done = run_train('--verbose')
    assert done.returncode == 0
    assert re.search(r'^  bert/token_embedding +\(\d+, 32\) +P', done.stderr, re.MULTILINE)
    assert re.search(r'^  bert/layers/blocks/\*/.* x2$', done.stderr, re.MULTILINE)


def test_terminal_has_one_line_for_progress(tmp_path, corpus, rows):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    with contextlib.redirect_stderr(Terminal()) as stream:
        assert pretrain(tmp_path, corpus, rows, *SHORT) == 0
    text = stream.getvalue()
    assert 'step 1/4' in text
    lines = [line.split('\r\033[K')[-1] for line in text.split('\n')]
    assert [line.split('  loss')[0] for line in lines] == ['step 2  evaluation', 'step 4  evaluation', '']


def test_preparing_a_data_set_prints_nothing(capsys):
    builder = types.SimpleNamespace(download_and_prepare=lambda: print('Unknown size'))
    sources._download_and_prepare(builder, progress_bar=False)
    assert capsys.readouterr() == ('', '')
