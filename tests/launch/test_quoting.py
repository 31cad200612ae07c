"""Arguments with any characters reach the training unchanged, through SSH and through batch scripts of SLURM."""

import pathlib
import shlex
import subprocess
import sys

import hypothesis
from hypothesis import strategies as st

from bert_jax.experiments import slurm
from bert_jax.experiments.jobs import Job
from tests.runs import ROOT

sys.path.insert(0, str(ROOT / 'launch'))
import remote

# Mostly characters that mean something to a shell; a file name or argument cannot hold NUL.
CHARACTERS = st.one_of(
    st.sampled_from('\'"`$\\;&|<>(){}[]*?~!#^%= \t\n-'), st.characters(exclude_characters='\0', codec='utf-8')
)
WORDS = st.lists(st.text(CHARACTERS, max_size=12), max_size=4)
PRINT = 'printf \'%s\\0\' start "$@"'


def run(script):
    """Run a script and return the words that it prints."""
    done = subprocess.run(['bash', '-c', script], check=True, capture_output=True)
    return done.stdout.decode().split('\0')[1:-1]


@hypothesis.settings(max_examples=100, deadline=None)
@hypothesis.given(WORDS)
def test_arguments_survive_ssh(words):
    fakes = f'cd() {{ :; }}; source() {{ :; }}; exec() {{ shift 3; {PRINT}; }}; '
    assert run(fakes + remote.train_command(words)) == words
    # SSH passes one string to the remote shell, which starts another one.
    assert run(f'bash -c {shlex.quote(fakes + remote.train_command(words))}') == words


@hypothesis.settings(max_examples=60, deadline=None)
@hypothesis.given(words=WORDS, name=st.text(CHARACTERS, min_size=1, max_size=12))
def test_arguments_survive_batch_scripts(words, name, tmp_path_factory):
    name = name.replace('/', '_').replace('\\', '_').replace('\n', '_').strip('.') or '_'
    folder = pathlib.Path(tmp_path_factory.mktemp('slurm'), name)
    folder.mkdir()
    (folder / 'job.json').write_text('{}')
    script = slurm.script(Job(folder, 'config.py', tuple(f'data.source={word}' for word in words)), [])
    script = script.replace(shlex.quote(sys.executable), ':', 1)  # the record of what the job depends on
    found = run(f'srun() {{ shift 3; {PRINT}; }}\n{script}')
    assert found == [
        f'--workdir={folder}', '--config=config.py', *(f'--config.data.source={word}' for word in words)
    ]  # fmt: skip
    assert (folder / 'done.json').exists()
