"""Submit jobs to SLURM. Their batch scripts requeue a job that is preempted or reaches its time limit, until it finishes."""

import pathlib
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence

from bert_jax.core import paths
from bert_jax.core.errors import UserError
from bert_jax.experiments.jobs import DONE, JOB, ROOT, Job, find_unfinished, set_aside, validate

SCRIPT, ARRAY_SCRIPT, ID, LOG = 'slurm.sh', 'array.sh', 'slurm.id', 'slurm-%j.log'
# SLURM sends SIGTERM this many seconds before the time limit of a job; training then saves a checkpoint.
NOTICE = 120


def script(job: Job, options: Sequence[str] = ()) -> str:
    """Return the batch script of a job.

    On SIGTERM, a training job saves a checkpoint and exits with status 75 (143 if training had not started).
    The script then requeues the job, unless it was canceled, or it saved nothing new and has already been
    restarted three times. What the job depends on is recorded before it starts or, for a job that follows a training
    run, when it has finished.

    Args:
      job: the job; `srun` starts one process per SLURM task.
      options: sbatch options, such as '--nodes=2'; they override the options that this function sets.

    Raises:
      UserError: if the path of the folder contains a backslash or a line break, which sbatch does not accept.
    """
    folder = job.folder.absolute()
    if {'\\', '\n'} & set(str(folder)):
        raise UserError(
            f'sbatch cannot handle the folder name {str(folder)!r}. Choose a --workdir without backslashes and line breaks.'
        )
    log = f'{str(folder).replace("%", "%%")}/{LOG}'
    record = f'{shlex.quote(sys.executable)} -m bert_jax.experiments.jobs "$folder"'
    run = f'srun {"--ntasks=1 " if job.is_study else ""}{shlex.join(job.command)}'
    return '\n'.join(
        [
            *_header(folder, [f'--output={log}', '--kill-on-invalid-dep=yes', *options]),
            f'export PYTHONPATH={shlex.quote(ROOT)}${{PYTHONPATH:+:$PYTHONPATH}}',
            f'folder={shlex.quote(str(folder))}',
            '# In an array, the plain job id of an element may be that of the whole array.',
            'id=${SLURM_ARRAY_JOB_ID:+${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID}',
            'id=${id:-$SLURM_JOB_ID}',
            'trap : TERM  # the training handles the signal and saves',
            'touch "$folder/.started"',
            f'{run} && {record}' if job.watch else f'{record} && {run}',
            'status=$?',
            'if [ $status -eq 0 ]; then',
            f'    cp "$folder/{JOB}" "$folder/{DONE}.tmp" && mv "$folder/{DONE}.tmp" "$folder/{DONE}"',
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


def _header(folder: pathlib.Path, options: Sequence[str]) -> list[str]:
    """Return the first lines of a batch script: sbatch options, in quotes if they contain special characters.

    Args:
      folder: absolute path of a folder; its name becomes the job name.
      options: sbatch options; a later option overrides an earlier one, and all override those that this function sets.
    """
    defaults = [
        f'--job-name={folder.name}',
        f'--chdir={pathlib.Path.cwd()}',
        '--open-mode=append',  # a requeued job appends to its log
        '--requeue',
        f'--signal=TERM@{NOTICE}',
    ]
    plain = re.compile(r'[^\s"\'#\\]+')
    quoted = (o if plain.fullmatch(o) else '"' + o.replace('"', '\\"') + '"' for o in [*defaults, *options])
    return ['#!/bin/bash', *(f'#SBATCH {option}' for option in quoted)]


def submit(jobs: Sequence[tuple[Job, Sequence[str]]]) -> dict[pathlib.Path, str]:
    """Submit the jobs that are neither finished nor already in the queue.

    Args:
      jobs: pairs of a job and its sbatch options; a job must come after the job that it depends on.

    Returns:
      The SLURM id, by folder, of each job that is now in the queue.

    Raises:
      UserError: if SLURM is not installed, or rejects a job.
    """
    ids, new = _write_scripts(jobs)
    for job in new:
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
      options: sbatch options for each job.
      folder: where to write the script of the array.
      max_running: maximum number of jobs that run in parallel; 0 for no limit.
    """
    ids, new = _write_scripts([(job, options) for job in jobs])
    if not new:
        return ids
    paths.write_atomic(folder / ARRAY_SCRIPT, _array_script(new, options, folder, max_running))
    array_id = _sbatch(str(folder / ARRAY_SCRIPT))
    for i, job in enumerate(new):
        ids[job.folder] = f'{array_id}_{i}'
        paths.write_atomic(job.folder / ID, ids[job.folder] + '\n')
    return ids


def preview_array(
    jobs: Sequence[Job], options: Sequence[str], folder: pathlib.Path, max_running: int = 0
) -> str:
    """Return the script that `submit_array` would submit for the unfinished jobs, and the script of the first of them.

    The arguments are those of `submit_array`. SLURM is not needed, and nothing is written.
    """
    unfinished = find_unfinished(jobs)
    new = [job for job in jobs if job.folder in unfinished]
    if not new:
        return '# All runs are finished.\n'
    first = new[0].folder.absolute() / SCRIPT
    return (
        f'# {folder.absolute() / ARRAY_SCRIPT}\n{_array_script(new, options, folder, max_running)}\n'
        f'# {first}, the script of the first of {len(new)} runs\n{script(new[0], options)}'
    )


def _array_script(jobs: Sequence[Job], options: Sequence[str], folder: pathlib.Path, max_running: int) -> str:
    """Return the batch script of an array, whose elements run the scripts in the folders of the jobs."""
    array = f'--array=0-{len(jobs) - 1}' + (f'%{max_running}' if max_running else '')
    folders = shlex.join(str(job.folder.absolute()) for job in jobs)
    return '\n'.join(
        [
            # Each job writes its own log.
            *_header(folder.absolute(), ['--output=/dev/null', array, *options]),
            f'folders=({folders})',
            'folder=${folders[$SLURM_ARRAY_TASK_ID]}',
            f'exec bash "$folder/{SCRIPT}" >> "$folder/{LOG.replace("%j", "$SLURM_JOB_ID")}" 2>&1',
            '',
        ]
    )


def _write_scripts(jobs: Sequence[tuple[Job, Sequence[str]]]) -> tuple[dict[pathlib.Path, str], list[Job]]:
    """Validate the unfinished jobs, and write the scripts of those that are not in the queue.

    Results of jobs whose config, data or checkpoint has changed are set aside.

    Args:
      jobs: pairs of a job and its sbatch options.

    Returns:
      The SLURM ids, by folder, of the jobs in the queue; and the jobs to submit.

    Raises:
      UserError: if SLURM is not installed, or a job is in the queue with another script.
    """
    changes = find_unfinished([job for job, _ in jobs])
    scripts = [(job, script(job, options)) for job, options in jobs if job.folder in changes]
    validate([job for job, _ in scripts])
    queue = _call('squeue', '--me', '--array', '--noheader', '--format=%i').split()
    ids: dict[pathlib.Path, str] = {}
    new: list[tuple[Job, str]] = []
    for job, text in scripts:
        id_file, script_file = job.folder / ID, job.folder / SCRIPT
        job_id = id_file.read_text().strip() if id_file.is_file() else ''
        if job_id not in queue:
            new.append((job, text))
        elif script_file.read_text() == text:
            ids[job.folder] = job_id
        else:
            raise UserError(
                f'{str(job.folder)!r} is in the queue with other settings or options. Run `scancel {job_id}` and '
                'submit again.'
            )
    for job, text in new:
        if change := changes[job.folder]:
            set_aside(job, change)
        job.mark_submitted()
        paths.write_atomic(job.folder / SCRIPT, text)
    return ids, [job for job, _ in new]


def _sbatch(*arguments: str) -> str:
    return _call('sbatch', '--parsable', *arguments).split(';')[0].strip()


def _call(*command: str) -> str:
    if not shutil.which(command[0]):
        raise UserError(f'{command[0]} was not found. Run this command on a machine of a SLURM cluster.')
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise UserError(f'{shlex.join(command)} failed: {done.stderr.strip() or done.stdout.strip()}')
    return done.stdout
