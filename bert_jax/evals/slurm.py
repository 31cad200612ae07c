"""Jobs on SLURM: for each a batch script that starts it again, after preemption and at the time limit, until it is done."""

import json
import pathlib
import re
import shlex
import shutil
import subprocess
from collections.abc import Sequence

from bert_jax.core import paths
from bert_jax.core.errors import UserError
from bert_jax.evals.jobs import DONE, Job, check

SCRIPT, ID, LOG = 'slurm.sh', 'slurm.id', 'slurm-%j.log'
# SLURM ends the steps of a job so many seconds before its time limit, of which training needs some to save.
NOTICE = 120


def script(job: Job, options: Sequence[str] = ()) -> str:
    """The batch script of a job.

    A run that is told to stop saves and ends with status 75 (143 if it had not begun), upon which its job is put back
    into the queue; a job that was cancelled is not.

    Args:
      job: what to run; each task of `srun` is one of its processes.
      options: of sbatch, such as '--nodes=2'; those here go before them.
    """
    place = job.place.absolute()
    own = [
        f'--job-name={job.place.name}',
        f'--chdir={pathlib.Path.cwd()}',
        f'--output={place / LOG}',
        '--open-mode=append',
        '--requeue',
        f'--signal=TERM@{NOTICE}',
        '--kill-on-invalid-dep=yes',
    ]
    lines = [f'#SBATCH {_quoted(option)}' for option in (*own, *options)]
    return '\n'.join(
        [
            '#!/bin/bash',
            *lines,
            'trap : TERM  # is for the training, which saves',
            f'srun {shlex.join(job.command)}',
            'status=$?',
            'if [[ $status -eq 75 || $status -eq 143 ]] && scontrol show job "$SLURM_JOB_ID" | grep -q JobState=RUNNING; then',
            '    scontrol requeue "$SLURM_JOB_ID"',
            'elif [ $status -eq 0 ]; then',
            f'    echo {shlex.quote(json.dumps(job.about))} > {shlex.quote(str(place / DONE))}',
            'fi',
            'exit $status',
            '',
        ]
    )


def _quoted(option: str) -> str:
    """An option as a #SBATCH line reads it."""
    return option if re.fullmatch(r'[^\s"\'#\\]+', option) else '"' + option.replace('"', '\\"') + '"'


def submit(jobs: Sequence[tuple[Job, Sequence[str]]]) -> dict[pathlib.Path, str]:
    """Submits what has not ended well and is not in the queue yet.

    Args:
      jobs: each with its options of sbatch, after the one that it waits for.

    Returns:
      The number in SLURM of each job that is in the queue now.

    Raises:
      UserError: if SLURM is not there, or does not take a job.
    """
    check([job for job, _ in jobs if not job.finished])
    scripts = {job.place: script(job, options) for job, options in jobs if not job.finished}
    queued = _call('squeue', '--me', '--noheader', '--format=%A').split()
    found: dict[pathlib.Path, str] = {}
    for job, _ in jobs:
        if job.place not in scripts:
            continue
        file = job.place / ID
        if not (file.is_file() and file.read_text().strip() in queued):
            paths.write(job.place / SCRIPT, scripts[job.place])
            when = 'after' if job.watches else 'afterok'
            wait = [f'--dependency={when}:{found[job.after]}'] if job.after in found else []
            number = _call('sbatch', '--parsable', *wait, str(job.place / SCRIPT)).split(';')[0].strip()
            paths.write(file, number + '\n')
        found[job.place] = file.read_text().strip()
    return found


def _call(*words: str) -> str:
    if not shutil.which(words[0]):
        raise UserError(f'There is no {words[0]} here: submit from a machine of a SLURM cluster.')
    done = subprocess.run(words, capture_output=True, text=True)
    if done.returncode:
        raise UserError(f'{shlex.join(words)} says: {done.stderr.strip() or done.stdout.strip()}')
    return done.stdout
