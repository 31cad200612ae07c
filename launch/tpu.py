"""Train on a TPU VM: request a queued resource, install, run on all workers, resume after preemption, copy results, delete.

Needs the command `gcloud`, logged in to Google Cloud. With several workers, --workdir must be in a bucket, because all
workers write there. Only the code is copied: send text and labeled data with --send, or put them into a bucket that
--bucket mounts as the folder `bucket` on all workers.
"""

import argparse
import pathlib
import sys
import tempfile
import time

import remote

from bert_jax.core.config import did_you_mean
from bert_jax.core.errors import UserError

# TPU runtime version, by the generation in --type.
VERSIONS = {
    **dict.fromkeys(('v2', 'v3', 'v4'), 'tpu-ubuntu2204-base'),
    'v5litepod': 'v2-alpha-tpuv5-lite',
    'v5p': 'v2-alpha-tpuv5',
    'v6e': 'v2-alpha-tpuv6e',
}
# Largest size in --type that is one worker: 8 chips of v5e and v6e, or the 8 cores of 4 chips of the others.
ONE_WORKER = 8
STOPPED = 75  # exit status of a training run that saved a checkpoint after SIGTERM
LOST = ('SUSPENDING', 'SUSPENDED', 'FAILED', 'DELETING')


class Tpu:
    """A queued resource with one TPU VM of the same name.

    Args:
      flags: the flags of this launcher.
      run: runs or prints the commands.
    """

    def __init__(self, flags: argparse.Namespace, run: remote.Runner):
        self.flags, self.run = flags, run
        self.location = [f'--zone={flags.zone}', *([f'--project={flags.project}'] if flags.project else [])]

    def queued_resource(self, verb: str, *options: str) -> list[str]:
        """Return the gcloud command that applies `verb` to the queued resource."""
        name = self.flags.name
        return ['gcloud', 'compute', 'tpus', 'queued-resources', verb, name, *self.location, *options]

    def acquire(self, state: str) -> None:
        """Request the TPU unless it exists, wait until it is active, and install the project.

        Args:
          state: current state of the queued resource; after a preemption, it is deleted and requested again.

        Raises:
          SystemExit: if the request fails.
        """
        if state in LOST:
            self.delete()
        if state in ('', *LOST):
            self.create()
        while not self.run.dry_run and (state := self.state()) != 'ACTIVE':
            if state in LOST:
                describe = ' '.join(self.queued_resource('describe'))
                sys.exit(f'error: The queued resource is {state}. To see why, run: {describe}')
            time.sleep(self.flags.poll)
        self.install()

    def create(self) -> None:
        f = self.flags
        version = f.version or VERSIONS[f.type.partition('-')[0]]
        options = [f'--node-id={f.name}', f'--accelerator-type={f.type}', f'--runtime-version={version}']
        self.run(*self.queued_resource('create', *options, *(['--spot'] if f.spot else [])))

    def state(self, tries: int = 20) -> str:
        """Query the state of the queued resource, such as 'ACTIVE'; empty if it is not found within `tries` queries."""
        for i in range(tries):
            state = self.run.output(*self.queued_resource('describe', '--format=value(state.state)'))
            if state or self.run.dry_run:
                return state
            time.sleep(self.flags.poll if i + 1 < tries else 0)
        return ''

    def ssh(self, command: str, may_fail: bool = False) -> int:
        """Run a shell command on all workers; return the exit status."""
        ssh = ['gcloud', 'compute', 'tpus', 'tpu-vm', 'ssh', self.flags.name, *self.location, '--worker=all']
        return self.run(*ssh, f'--command=bash -c {remote.shlex.quote(command)}', may_fail=may_fail)

    def copy(self, source: str, target: str, worker: str) -> None:
        scp = ['gcloud', 'compute', 'tpus', 'tpu-vm', 'scp', '--recurse', source, target, *self.location]
        self.run(*scp, f'--worker={worker}')

    def install(self) -> None:
        """Copy the project to all workers, install it with the package for buckets, and mount the bucket with data."""
        with tempfile.TemporaryDirectory() as folder:
            file = remote.make_archive(self.run, pathlib.Path(folder), self.flags.send)
            self.copy(str(file), f'{self.flags.name}:', 'all')
        self.ssh(remote.install_command('tpu', 'gcsfs'))
        if self.flags.bucket:
            bucket = remote.shlex.quote(self.flags.bucket)
            mount = f'cd bert_jax && mkdir -p bucket && (mountpoint -q bucket || gcsfuse --implicit-dirs {bucket} bucket)'
            self.ssh(mount)

    def delete(self) -> None:
        self.run(*self.queued_resource('delete', '--force', '--quiet'), may_fail=True)


def _parse(arguments: list[str]) -> tuple[argparse.Namespace, argparse.ArgumentParser]:
    parser = remote.make_parser(
        'tpu.py',
        __doc__,
        '--name=bert --zone=us-west4-a --type=v5litepod-16 --spot '
        '-- --config=configs/pretrain/bert.py:base --workdir=gs://BUCKET/bert-base',
        '--name=sst2 --zone=us-west4-a --type=v5litepod-8 --send=runs/english --fetch=runs --print '
        '-- --config=configs/finetune/sst2.py --workdir=runs/sst2 --config.init.checkpoint=runs/english',
    )
    parser.add_argument('--name', required=True, help='name of the queued resource and the TPU VM')
    parser.add_argument('--zone', required=True, help='Google Cloud zone, such as us-west4-a')
    parser.add_argument(
        '--project', default='', help='Google Cloud project; by default the one configured in gcloud'
    )
    parser.add_argument(
        '--type', required=True, help='accelerator type, such as v5litepod-16, v4-32, v5p-8 or v6e-256'
    )
    parser.add_argument('--version', default='', help='TPU runtime version; the default depends on --type')
    parser.add_argument('--spot', action='store_true', help='request cheaper capacity that may be preempted')
    parser.add_argument(
        '--bucket', default='', help='Cloud Storage bucket with data, to mount as the folder `bucket`'
    )
    parser.add_argument('--keep', action='store_true', help='do not delete the TPU afterwards')
    parser.add_argument(
        '--poll', type=float, default=30, help='seconds between checks of the state of the TPU'
    )
    return parser.parse_args(arguments), parser


def _parse_type(name: str) -> int:
    """Return the size in an accelerator type, such as 16 for v5litepod-16.

    Raises:
      UserError: if there is no such type.
    """
    generation, _, size = name.partition('-')
    if generation not in VERSIONS:
        typed = generation.lower().replace('v5e', 'v5litepod')
        raise UserError(
            f'--type={name} has the unknown generation {generation!r}: {did_you_mean(typed, VERSIONS)}'
        )
    if not size.isdecimal():
        raise UserError(f'--type={name} has no size. Write one after the generation, as in {generation}-8.')
    return int(size)


def main() -> int:
    launch_args, train_args = remote.split_arguments(sys.argv[1:])
    flags, parser = _parse(launch_args)
    workdir = remote.validate(train_args, flags.send)
    is_in_bucket = workdir.startswith('gs://')
    if _parse_type(flags.type) > ONE_WORKER and not is_in_bucket:
        raise UserError(
            f'--type={flags.type} has several workers, which all write to --workdir. Set --workdir=gs://BUCKET/RUN.'
        )
    if not (is_in_bucket or flags.fetch or flags.keep):
        parser.error(
            'the run would be deleted together with the TPU; pass --workdir=gs://BUCKET/RUN, or --fetch, or --keep'
        )
    tpu = Tpu(flags, remote.Runner(flags.print))

    tpu.acquire(tpu.state(tries=1))  # reuses a TPU that an earlier call requested or kept
    while status := tpu.ssh(remote.train_command(train_args), may_fail=True):
        if (state := tpu.state()) in LOST:
            print('the TPU was preempted; requesting another one', file=sys.stderr)
            tpu.acquire(state)
        elif status != STOPPED:
            print(
                f'the training exited with status {status}; the TPU is kept for inspection', file=sys.stderr
            )
            return status
    if flags.fetch and is_in_bucket:
        tpu.run('gcloud', 'storage', 'cp', '--recursive', workdir, flags.fetch)
    elif flags.fetch:
        tpu.copy(f'{flags.name}:{workdir}', flags.fetch, '0')
    if not flags.keep:
        tpu.delete()
    return 0


if __name__ == '__main__':
    remote.run(
        main,
        'interrupted; the TPU still exists and costs money; run the same command again to continue with it',
    )
