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
from bert_jax.experiments.jobs import DONE, ROOT, Job, check

SCRIPT, ID, LOG = 'slurm.sh', 'slurm.id', 'slurm-%j.log'
# SLURM ends the steps of a job so many seconds before its time limit, of which training needs some to save.
NOTICE = 120
# A job that is begun again goes on in its log.
_KEEP = ('--open-mode=append', '--requeue', f'--signal=TERM@{NOTICE}')


def script(job: Job, options: Sequence[str] = ()) -> str:
    """The batch script of a job.

    A run that is told to stop saves and ends with status 75 (143 if it had not begun), upon which its job is put back
    into the queue, three times even if there was nothing to save; a job that was cancelled is not.

    Args:
      job: what to run; each task of `srun` is one of its processes.
      options: of sbatch, such as '--nodes=2'; those here go before them.

    Raises:
      UserError: for a working directory whose name sbatch does not read as it is.
    """
    place = job.place.absolute()
    if {'\\', '\n'} & set(str(place)):
        raise UserError(
            f'sbatch does not read {str(place)!r} as it is: give a --workdir without backslash and line break.'
        )
    own = [
        f'--job-name={place.name}',
        f'--chdir={pathlib.Path.cwd()}',
        f'--output={str(place).replace("%", "%%")}/{LOG}',
        '--kill-on-invalid-dep=yes',
        *_KEEP,
    ]
    return '\n'.join(
        [
            '#!/bin/bash',
            *_options([*own, *options]),
            f'export PYTHONPATH={shlex.quote(ROOT)}${{PYTHONPATH:+:$PYTHONPATH}}',
            f'place={shlex.quote(str(place))}',
            '# Of an array the number of one element may be that of all.',
            'id=${SLURM_ARRAY_JOB_ID:+${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID}',
            'id=${id:-$SLURM_JOB_ID}',
            'trap : TERM  # is for the training, which saves',
            'touch "$place/.begun"',
            f'srun {"--ntasks=1 " if job.studies else ""}{shlex.join(job.command)}',
            'status=$?',
            'if [ $status -eq 0 ]; then',
            f'    echo {shlex.quote(json.dumps(job.about))} > "$place/{DONE}.tmp" && mv "$place/{DONE}.tmp" "$place/{DONE}"',
            'elif [[ $status -eq 75 || $status -eq 143 ]] && scontrol show job "$id" | grep -q JobState=RUNNING; then',
            '    new=$(find "$place/checkpoints" "$place/scores.json" -newer "$place/.begun" -print -quit 2>/dev/null)',
            '    if [[ $new || ${SLURM_RESTART_COUNT:-0} -lt 3 ]]; then',
            '        scontrol requeue "$id"',
            '    else',
            f'        echo "error: it is stopped {NOTICE} seconds before its time limit and had nothing to save: give a longer --time"',
            '    fi',
            'fi',
            'exit $status',
            '',
        ]
    )


def _options(options: Sequence[str]) -> list[str]:
    """Options of sbatch as the lines of a script that it reads."""
    plain = re.compile(r'[^\s"\'#\\]+')
    quoted = (o if plain.fullmatch(o) else '"' + o.replace('"', '\\"') + '"' for o in options)
    return [f'#SBATCH {option}' for option in quoted]


def submit(jobs: Sequence[tuple[Job, Sequence[str]]]) -> dict[pathlib.Path, str]:
    """Submits what has not ended well and is not in the queue yet.

    Args:
      jobs: each with its options of sbatch, after the one that it waits for.

    Returns:
      The number in SLURM of each job that is in the queue now.

    Raises:
      UserError: if SLURM is not there, or does not take a job.
    """
    scripts = {job.place: script(job, options) for job, options in jobs if not job.finished}
    found = _queued([job for job, _ in jobs if not job.finished])
    for job, _ in jobs:
        if job.place not in scripts:
            continue
        if job.place in found:
            _check_same(job.place, scripts[job.place])
        else:
            paths.write(job.place / SCRIPT, scripts[job.place])
            when = 'after' if job.watches else 'afterok'
            wait = [f'--dependency={when}:{found[job.after]}'] if job.after in found else []
            found[job.place] = _sbatch(*wait, str(job.place / SCRIPT))
            paths.write(job.place / ID, found[job.place] + '\n')
    return found


def submit_array(
    jobs: Sequence[Job], options: Sequence[str], folder: pathlib.Path, at_once: int = 0
) -> dict[pathlib.Path, str]:
    """As `submit`, jobs that wait for nothing as one array.

    Args:
      jobs: what to run.
      options: of sbatch, for each of them.
      folder: for the script of the array.
      at_once: how many may run at a time; 0 is all.
    """
    waiting = [job for job in jobs if not job.finished]
    found = _queued(waiting)
    todo = []
    for job in waiting:
        text = script(job, options)
        if job.place in found:
            _check_same(job.place, text)
        else:
            paths.write(job.place / SCRIPT, text)
            todo.append(job)
    if not todo:
        return found
    own = [
        f'--job-name={folder.absolute().name}',
        f'--chdir={pathlib.Path.cwd()}',
        '--output=/dev/null',  # each has a log of its own
        f'--array=0-{len(todo) - 1}' + (f'%{at_once}' if at_once else ''),
        *_KEEP,
    ]
    places = shlex.join(str(job.place.absolute()) for job in todo)
    lines = [
        '#!/bin/bash',
        *_options([*own, *options]),
        f'places=({places})',
        'place=${places[$SLURM_ARRAY_TASK_ID]}',
        f'exec bash "$place/{SCRIPT}" >> "$place/{LOG.replace("%j", "$SLURM_JOB_ID")}" 2>&1',
        '',
    ]
    paths.write(folder / 'array.sh', '\n'.join(lines))
    number = _sbatch(str(folder / 'array.sh'))
    for i, job in enumerate(todo):
        found[job.place] = f'{number}_{i}'
        paths.write(job.place / ID, found[job.place] + '\n')
    return found


def _queued(jobs: Sequence[Job]) -> dict[pathlib.Path, str]:
    """Those of the jobs that are in the queue."""
    check(jobs)
    queue = {*_call('squeue', '--me', '--array', '--noheader', '--format=%i').split()}
    files = {job.place: job.place / ID for job in jobs}
    ids = {place: file.read_text().strip() for place, file in files.items() if file.is_file()}
    return {place: number for place, number in ids.items() if number in queue}


def _check_same(place: pathlib.Path, text: str) -> None:
    """Raises UserError if another script than this is in the queue."""
    if (place / SCRIPT).read_text() != text:
        raise UserError(
            f'{str(place)!r} is in the queue with other settings or options: scancel {(place / ID).read_text().strip()}, '
            'and give the command again.'
        )


def _sbatch(*words: str) -> str:
    return _call('sbatch', '--parsable', *words).split(';')[0].strip()


def _call(*words: str) -> str:
    if not shutil.which(words[0]):
        raise UserError(f'There is no {words[0]} here: submit from a machine of a SLURM cluster.')
    done = subprocess.run(words, capture_output=True, text=True)
    if done.returncode:
        raise UserError(f'{shlex.join(words)} says: {done.stderr.strip() or done.stdout.strip()}')
    return done.stdout
