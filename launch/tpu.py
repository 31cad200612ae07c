"""A training on a TPU VM: gets a queued resource, installs, runs on all workers, again after preemption; fetches, deletes.

python launch/tpu.py --name=bert --zone=us-west4-a --type=v5litepod-16 --spot --bucket=NAME [--fetch=DIR] [--print] \
    -- --config=configs/pretrain/bert.py:base --workdir=bucket/bert-base

Needs the `gcloud` command, logged in. All workers write into one --workdir, so it lies in the bucket, which is mounted
as `bucket`; a TPU with one worker does without. --print shows every command and runs none.
"""

import argparse
import pathlib
import sys
import tempfile
import time

import remote

# The software of the virtual machine, by the beginning of --type.
VERSIONS = {'v5lite': 'v2-alpha-tpuv5-lite', 'v5p': 'v2-alpha-tpuv5', 'v6e': 'v2-alpha-tpuv6e'}
STOPPED = 75  # of a training that was told to stop, and has saved
LOST = ('SUSPENDING', 'SUSPENDED', 'FAILED', 'DELETING')


class Tpu:
    """A queued resource with one TPU, both of one name."""

    def __init__(self, flags: argparse.Namespace, run: remote.Runner):
        self.flags, self.run = flags, run
        self.where = [f'--zone={flags.zone}', *([f'--project={flags.project}'] if flags.project else [])]

    def queued(self, verb: str, *words: str) -> list[str]:
        return ['gcloud', 'compute', 'tpus', 'queued-resources', verb, self.flags.name, *self.where, *words]

    def obtain(self, state: str) -> None:
        """Has the TPU ready: asks for it if it is not there, again if it was taken away, waits, and installs.

        Raises:
          SystemExit: if it never will be there.
        """
        if state in LOST:
            self.delete()
        if state in ('', *LOST):
            self.create()
        while not self.run.show and (state := self.state()) != 'ACTIVE':
            if state in LOST:
                sys.exit(f'error: The queued resource is {state}: see {" ".join(self.queued("describe"))}')
            time.sleep(self.flags.poll)
        self.install()

    def create(self) -> None:
        f = self.flags
        version = f.version or next(
            (v for k, v in VERSIONS.items() if f.type.startswith(k)), 'tpu-ubuntu2204-base'
        )
        words = [f'--node-id={f.name}', f'--accelerator-type={f.type}', f'--runtime-version={version}']
        self.run(*self.queued('create', *words, *(['--spot'] if f.spot else [])))

    def state(self, tries: int = 20) -> str:
        """Such as ACTIVE; empty if it cannot be had."""
        for i in range(tries):
            state = self.run.output(*self.queued('describe', '--format=value(state.state)'))
            if state or self.run.show:
                return state
            time.sleep(self.flags.poll if i + 1 < tries else 0)
        return ''

    def ssh(self, command: str, may_fail: bool = False) -> int:
        """Runs a shell command on all workers."""
        words = ['gcloud', 'compute', 'tpus', 'tpu-vm', 'ssh', self.flags.name, *self.where]
        return self.run(
            *words, '--worker=all', f'--command=bash -c {remote.shlex.quote(command)}', may_fail=may_fail
        )

    def copy(self, source: str, target: str, worker: str) -> None:
        words = ['gcloud', 'compute', 'tpus', 'tpu-vm', 'scp', '--recurse', source, target, *self.where]
        self.run(*words, f'--worker={worker}')

    def install(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            file = remote.archive(self.run, pathlib.Path(folder))
            self.copy(str(file), f'{self.flags.name}:', 'all')
        self.ssh(remote.install('tpu'))
        if self.flags.bucket:
            bucket = remote.shlex.quote(self.flags.bucket)
            mount = f'cd bert_jax && mkdir -p bucket && (mountpoint -q bucket || gcsfuse --implicit-dirs {bucket} bucket)'
            self.ssh(mount)

    def delete(self) -> None:
        self.run(*self.queued('delete', '--force', '--quiet'), may_fail=True)


def main() -> int:
    own, words = remote.after_dashes(sys.argv[1:])
    parser = argparse.ArgumentParser(prog='python launch/tpu.py', description=__doc__.splitlines()[0])
    parser.add_argument('--name', required=True, help='of the queued resource')
    parser.add_argument('--zone', required=True)
    parser.add_argument('--project', default='', help='the default is that of gcloud')
    parser.add_argument('--type', required=True, help='such as v5litepod-16, v4-32, v5p-8, v6e-256')
    parser.add_argument(
        '--version', default='', help='of the software of the virtual machine; the default is by type'
    )
    parser.add_argument('--spot', action='store_true', help='cheaper, and taken away when others pay more')
    parser.add_argument('--bucket', default='', help='of Cloud Storage, to be mounted as `bucket`')
    parser.add_argument('--fetch', default='', metavar='DIR', help='copy the --workdir here in the end')
    parser.add_argument('--keep', action='store_true', help='do not delete the TPU in the end')
    parser.add_argument('--print', action='store_true', help='show every command, and run none')
    parser.add_argument('--poll', type=float, default=30, help='seconds between looks at the queue')
    flags = parser.parse_args(own)
    place = remote.check(words)
    kept = flags.bucket and place.startswith('bert_jax/bucket/')
    if not (kept or flags.fetch or flags.keep):
        parser.error(
            'the run would be deleted with the TPU: give --bucket and a --workdir below bucket/, or --fetch, or --keep'
        )
    tpu = Tpu(flags, remote.Runner(flags.print))

    tpu.obtain(tpu.state(tries=1))  # one that was kept, or asked for before, is taken again
    while status := tpu.ssh(remote.train(words), may_fail=True):
        if (state := tpu.state()) in LOST:
            print('the TPU was taken away: asking for another', file=sys.stderr)
            tpu.obtain(state)
        elif status != STOPPED:
            print(f'the training ended with status {status}; the TPU is kept, for a look', file=sys.stderr)
            return status
    if flags.fetch:
        tpu.copy(f'{flags.name}:{place}', flags.fetch, '0')
    if not flags.keep:
        tpu.delete()
    return 0


if __name__ == '__main__':
    remote.run(main, 'interrupted: the TPU is kept, and costs; the same command goes on with it')
