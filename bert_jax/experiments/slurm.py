"""Submit jobs to SLURM. Their batch scripts requeue a job that is preempted or reaches its time limit, until it finishes."""

import json
import pathlib
import re
import shlex
import shutil
import subprocess
from collections.abc import Sequence

from bert_jax.core import paths
from bert_jax.core.errors import UserError
from bert_jax.experiments.jobs import DONE, ROOT, Job, validate

SCRIPT, ID, LOG = 'slurm.sh', 'slurm.id', 'slurm-%j.log'
# SLURM sends SIGTERM this many seconds before the time limit of a job; training then saves a checkpoint.
NOTICE = 120
# A requeued job appends to its log.
_REQUEUE_OPTIONS = ('--open-mode=append', '--requeue', f'--signal=TERM@{NOTICE}')


def script(job: Job, options: Sequence[str] = ()) -> str:
    """Return the batch script of a job.

    On SIGTERM, a training job saves a checkpoint and exits with status 75 (143 if training had not started). The script
    then requeues the job; if nothing new was saved, it does so at most three times. A canceled job is not requeued.

    Args:
      job: the job; `srun` starts one process of it per task.
      options: options of sbatch, such as '--nodes=2'; they override the options that this function sets.

    Raises:
      UserError: if the path of the folder contains a backslash or a line break, which sbatch does not accept.
    """
    folder = job.folder.absolute()
    if {'\\', '\n'} & set(str(folder)):
        raise UserError(
            f'sbatch cannot handle the folder name {str(folder)!r}. Choose a --workdir without backslashes and line breaks.'
        )
    defaults = [
        f'--job-name={folder.name}',
        f'--chdir={pathlib.Path.cwd()}',
        f'--output={str(folder).replace("%", "%%")}/{LOG}',
        '--kill-on-invalid-dep=yes',
        *_REQUEUE_OPTIONS,
    ]
    return '\n'.join(
        [
            '#!/bin/bash',
            *_directives([*defaults, *options]),
            f'export PYTHONPATH={shlex.quote(ROOT)}${{PYTHONPATH:+:$PYTHONPATH}}',
            f'folder={shlex.quote(str(folder))}',
            '# In an array, the plain job id of an element may be that of the whole array.',
            'id=${SLURM_ARRAY_JOB_ID:+${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID}',
            'id=${id:-$SLURM_JOB_ID}',
            'trap : TERM  # the training handles the signal and saves',
            'touch "$folder/.started"',
            f'srun {"--ntasks=1 " if job.is_study else ""}{shlex.join(job.command)}',
            'status=$?',
            'if [ $status -eq 0 ]; then',
            f'    echo {shlex.quote(json.dumps(job.record))} > "$folder/{DONE}.tmp" && mv "$folder/{DONE}.tmp" "$folder/{DONE}"',
            'elif [[ $status -eq 75 || $status -eq 143 ]] && scontrol show job "$id" | grep -q JobState=RUNNING; then',
            '    saved=$(find "$folder/checkpoints" "$folder/scores.json" -newer "$folder/.started" -print -quit 2>/dev/null)',
            '    if [[ $saved || ${SLURM_RESTART_COUNT:-0} -lt 3 ]]; then',
            '        scontrol requeue "$id"',
            '    else',
            f'        echo "error: The job was stopped before it saved anything new. SLURM stops it {NOTICE} seconds before its '
            'time limit, so set a longer --time."',
            '    fi',
            'fi',
            'exit $status',
            '',
        ]
    )


def _directives(options: Sequence[str]) -> list[str]:
    """Format options of sbatch as #SBATCH lines, quoted where sbatch needs it."""
    plain = re.compile(r'[^\s"\'#\\]+')
    quoted = (o if plain.fullmatch(o) else '"' + o.replace('"', '\\"') + '"' for o in options)
    return [f'#SBATCH {option}' for option in quoted]


def submit(jobs: Sequence[tuple[Job, Sequence[str]]]) -> dict[pathlib.Path, str]:
    """Submit the jobs that are neither finished nor already in the queue.

    Args:
      jobs: pairs of a job and its options of sbatch; a job must come after the job that it depends on.

    Returns:
      The SLURM id, by folder, of each job that is now in the queue.

    Raises:
      UserError: if SLURM is not installed, or rejects a job.
    """
    scripts = {job.folder: script(job, options) for job, options in jobs if not job.is_finished}
    ids = _queued([job for job, _ in jobs if not job.is_finished])
    for job, _ in jobs:
        if job.folder not in scripts:
            continue
        if job.folder in ids:
            _check_unchanged(job.folder, scripts[job.folder])
        else:
            paths.write_atomic(job.folder / SCRIPT, scripts[job.folder])
            condition = 'after' if job.watch else 'afterok'
            dependency = [f'--dependency={condition}:{ids[job.depends_on]}'] if job.depends_on in ids else []
            ids[job.folder] = _sbatch(*dependency, str(job.folder / SCRIPT))
            paths.write_atomic(job.folder / ID, ids[job.folder] + '\n')
    return ids


def submit_array(
    jobs: Sequence[Job], options: Sequence[str], folder: pathlib.Path, max_running: int = 0
) -> dict[pathlib.Path, str]:
    """Submit independent jobs as one job array; otherwise like `submit`.

    Args:
      jobs: jobs without dependencies.
      options: options of sbatch for each job.
      folder: where to write the script of the array.
      max_running: maximum number of jobs that run in parallel; 0 for no limit.
    """
    unfinished = [job for job in jobs if not job.is_finished]
    ids = _queued(unfinished)
    new = []
    for job in unfinished:
        text = script(job, options)
        if job.folder in ids:
            _check_unchanged(job.folder, text)
        else:
            paths.write_atomic(job.folder / SCRIPT, text)
            new.append(job)
    if not new:
        return ids
    defaults = [
        f'--job-name={folder.absolute().name}',
        f'--chdir={pathlib.Path.cwd()}',
        '--output=/dev/null',  # each job writes its own log
        f'--array=0-{len(new) - 1}' + (f'%{max_running}' if max_running else ''),
        *_REQUEUE_OPTIONS,
    ]
    folders = shlex.join(str(job.folder.absolute()) for job in new)
    lines = [
        '#!/bin/bash',
        *_directives([*defaults, *options]),
        f'folders=({folders})',
        'folder=${folders[$SLURM_ARRAY_TASK_ID]}',
        f'exec bash "$folder/{SCRIPT}" >> "$folder/{LOG.replace("%j", "$SLURM_JOB_ID")}" 2>&1',
        '',
    ]
    paths.write_atomic(folder / 'array.sh', '\n'.join(lines))
    array_id = _sbatch(str(folder / 'array.sh'))
    for i, job in enumerate(new):
        ids[job.folder] = f'{array_id}_{i}'
        paths.write_atomic(job.folder / ID, ids[job.folder] + '\n')
    return ids


def _queued(jobs: Sequence[Job]) -> dict[pathlib.Path, str]:
    """The SLURM ids, by folder, of the jobs that are in the queue."""
    validate(jobs)
    queue = {*_call('squeue', '--me', '--array', '--noheader', '--format=%i').split()}
    files = {job.folder: job.folder / ID for job in jobs}
    ids = {folder: file.read_text().strip() for folder, file in files.items() if file.is_file()}
    return {folder: job_id for folder, job_id in ids.items() if job_id in queue}


def _check_unchanged(folder: pathlib.Path, text: str) -> None:
    """Raise UserError if the job in the queue was submitted with a script other than `text`."""
    if (folder / SCRIPT).read_text() != text:
        job_id = (folder / ID).read_text().strip()
        raise UserError(
            f'{str(folder)!r} is in the queue with other settings or options. Run `scancel {job_id}` and submit again.'
        )


def _sbatch(*arguments: str) -> str:
    return _call('sbatch', '--parsable', *arguments).split(';')[0].strip()


def _call(*command: str) -> str:
    if not shutil.which(command[0]):
        raise UserError(f'{command[0]} was not found. Run this command on a machine of a SLURM cluster.')
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise UserError(f'{shlex.join(command)} failed: {done.stderr.strip() or done.stdout.strip()}')
    return done.stdout
