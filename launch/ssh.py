"""Train on GPU machines that are reachable by SSH: install, run one process per host, copy the results back.

With several hosts, --workdir must be on a file system that all of them share. Only the code is copied: text, labeled
data and checkpoints must be on the hosts, or be sent with --send.
"""

import pathlib
import shlex
import subprocess
import sys
import tempfile

import remote


def main() -> int:
    launch_args, train_args = remote.split_arguments(sys.argv[1:])
    parser = remote.make_parser(
        'ssh.py',
        __doc__,
        '--hosts=me@a,me@b -- --config=configs/pretrain/bert.py:base --workdir=/shared/bert-base',
        '--hosts=me@a --send=runs/english --fetch=runs -- --config=configs/finetune/sst2.py --workdir=runs/sst2 '
        '--config.init.checkpoint=runs/english',
    )
    parser.add_argument('--hosts', required=True, help='comma-separated hosts; the first runs process 0')
    parser.add_argument(
        '--port', type=int, default=1234, help='port at which process 0 listens for the other processes'
    )
    flags = parser.parse_args(launch_args)
    run, hosts = remote.Runner(flags.print), flags.hosts.split(',')
    if not all(hosts):
        parser.error(f'--hosts={flags.hosts} contains an empty host name; write user@a,user@b')
    workdir = remote.validate(train_args, flags.send)

    with tempfile.TemporaryDirectory() as folder:
        file = remote.make_archive(run, pathlib.Path(folder), flags.send)
        for host in hosts:
            run('scp', '-q', str(file), f'{host}:')
            run('ssh', host, f'bash -c {shlex.quote(remote.install_command("cuda13"))}')
    commands = []
    for i, host in enumerate(hosts):
        process_args = [
            f'--coordinator={hosts[0].rpartition("@")[2]}:{flags.port}',
            f'--processes={len(hosts)}',
            f'--process={i}',
        ]
        training = remote.train_command([*train_args, *(process_args if len(hosts) > 1 else [])])
        # With a terminal (-tt), stopping ssh also stops the remote process.
        commands.append(['ssh', '-tt', host, f'bash -c {shlex.quote(training)}'])
    if flags.print:
        for command in commands:
            run(*command)
    else:
        statuses = [process.wait() for process in [subprocess.Popen(command) for command in commands]]
        if any(statuses):
            print(f'the processes exited with status {statuses}; see their output above', file=sys.stderr)
            return next((status for status in statuses if status > 0), 1)
    if flags.fetch:
        run('scp', '-q', '-r', f'{hosts[0]}:{workdir}', flags.fetch)
    return 0


if __name__ == '__main__':
    remote.run(main, 'interrupted; run the same command again to resume')
