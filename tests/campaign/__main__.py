"""Run the parts of the fault campaign, or repeat one case.

Usage: python -m tests.campaign MINUTES [SEED] [--part=NAME] | --repeat=CASE
"""

import argparse
import importlib
import os
import sys
import time

# The last of two values counts: one device, since the eight of the tests are slow on few cores.
os.environ['XLA_FLAGS'] = '--xla_force_host_platform_device_count=1'
from tests import conftest  # noqa: F401, sets the environment of the tests before JAX is imported

# Module of each part, and its share of the time; a part with the share 0 runs only with --part.
PARTS = {'input': ('inputs', 0.4), 'kills': ('kills', 0.3), 'disks': ('disks', 0.3), 'loads': ('loads', 0.0)}


def main() -> int:
    parser = argparse.ArgumentParser(
        prog='bash launch/campaign.sh', description='Find faults by random cases.'
    )
    parser.add_argument(
        'minutes', type=float, nargs='?', default=10.0, help='time to spend, of all parts together'
    )
    parser.add_argument('seed', type=int, nargs='?', default=0, help='seed of the cases')
    parser.add_argument('--part', choices=PARTS, help='the only part to run')
    parser.add_argument('--repeat', metavar='CASE', help='name of a failed case, such as input-0-17')
    flags = parser.parse_args()

    from tests.campaign import harness

    parts = [flags.part] if flags.part else [name for name, (_, share) in PARTS.items() if share]
    seed, first, count = flags.seed, 0, 0
    if flags.repeat:
        part, seed, first, count = *flags.repeat.split('-'), 1
        parts, seed, first = [part], int(seed), int(first)
    shares = {part: PARTS[part][1] or 1.0 for part in parts}
    has_failed = False
    for name, share in shares.items():
        start = time.monotonic()
        report = harness.run_part(
            name,
            importlib.import_module(f'tests.campaign.{PARTS[name][0]}'),
            seed,
            flags.minutes * 60 * share / sum(shares.values()),
            first,
            count,
        )
        has_failed |= bool(report.failures)
        kinds = ', '.join(f'{kind} {n}' for kind, n in sorted(report.tries.items()))
        seconds = time.monotonic() - start
        tries = sum(report.tries.values())
        print(
            f'{name}: {tries} tries, {len(report.failures)} failures, {seconds:.0f} s ({kinds})', flush=True
        )
        for reason in sorted(report.skipped):
            print(f'  skipped: {reason}')
    return int(has_failed)


if __name__ == '__main__':
    sys.exit(main())
