"""A training on GPU machines that one reaches by SSH: installs, runs a process on each, fetches.

python launch/ssh.py --hosts=user@a,user@b [--fetch=DIR] [--print] -- --config=configs/pretrain/bert.py:base --workdir=/shared/bert-base

Several hosts write into one --workdir, on a file system that all see. --print shows every command and runs none.
"""

import argparse
import pathlib
import shlex
import subprocess
import sys
import tempfile

import remote


def main() -> int:
    own, words = remote.after_dashes(sys.argv[1:])
    parser = argparse.ArgumentParser(prog='python launch/ssh.py', description=__doc__.splitlines()[0])
    parser.add_argument('--hosts', required=True, help='with commas between; the first is process 0')
    parser.add_argument('--port', type=int, default=1234, help='at which process 0 listens to the others')
    parser.add_argument('--fetch', default='', metavar='DIR', help='copy the --workdir here in the end')
    parser.add_argument('--print', action='store_true', help='show every command, and run none')
    flags = parser.parse_args(own)
    run, hosts = remote.Runner(flags.print), flags.hosts.split(',')
    if not all(hosts):
        parser.error(f'--hosts={flags.hosts} has an empty name: write user@a,user@b')
    place = remote.check(words)

    with tempfile.TemporaryDirectory() as folder:
        file = remote.archive(run, pathlib.Path(folder))
        for host in hosts:
            run('scp', '-q', str(file), f'{host}:')
            run('ssh', host, f'bash -c {shlex.quote(remote.install("cuda13"))}')
    commands = []
    for i, host in enumerate(hosts):
        several = [
            f'--coordinator={hosts[0].rpartition("@")[2]}:{flags.port}',
            f'--processes={len(hosts)}',
            f'--process={i}',
        ]
        training = remote.train([*words, *(several if len(hosts) > 1 else [])])
        # With a terminal, what stops this end stops the other.
        commands.append(['ssh', '-tt', host, f'bash -c {shlex.quote(training)}'])
    if flags.print:
        for command in commands:
            run(*command)
    else:
        statuses = [process.wait() for process in [subprocess.Popen(command) for command in commands]]
        if any(statuses):
            print(f'the processes ended with {statuses}', file=sys.stderr)
            return next((status for status in statuses if status > 0), 1)
    if flags.fetch:
        run('scp', '-q', '-r', f'{hosts[0]}:{place}', flags.fetch)
    return 0


if __name__ == '__main__':
    remote.run(main, 'interrupted: the same command goes on')
