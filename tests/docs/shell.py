"""Expand the shell commands of a code block with Bash itself, and run none of them."""

import pathlib
import re
import shutil
import subprocess
import tempfile

# Every program is missing, so Bash passes its words to this handler, which writes them to a file. Loops, variables,
# quotes and comments are Bash's own.
_RECORDER = r"""
exec 9>>"$1"
command_not_found_handle() { printf '%s\0' "$@" $'\x1e' >&9; }
for name in cd source . exec kill trap exit; do
    eval "$name() { printf '%s\0' $name \"\$@\" \$'\x1e' >&9; }"
done
PATH=/nonexistent
builtin source "$2" 2>&1
"""


def expand(code: str) -> list[list[str]]:
    """Return the words of each command that Bash would run, with loops and variables expanded.

    A block with `$ ` prompts counts from each prompt to the last continued line; the rest is output.

    Raises:
      AssertionError: if Bash cannot parse the code.
    """
    with tempfile.TemporaryDirectory() as folder:
        script, record = pathlib.Path(folder, 'block.sh'), pathlib.Path(folder, 'record')
        script.write_text(_commands(code) + '\n')
        record.touch()
        result = subprocess.run(
            [shutil.which('bash') or 'bash', '--noprofile', '--norc', '-c', _RECORDER, 'bash', str(record), str(script)],
            cwd=folder, env={}, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=10,
        )  # fmt: skip
        assert 'syntax error' not in result.stdout, result.stdout
        assert 'unexpected' not in result.stdout, result.stdout
        words = record.read_text().split('\0')
    commands: list[list[str]] = [[]]
    for word in words[:-1]:
        if word == '\x1e':
            commands.append([])
        else:
            commands[-1].append(word)
    return commands[:-1]


def _commands(code: str) -> str:
    lines = code.splitlines()
    if not any(re.match(r'\$ ', line) for line in lines):
        return code
    kept, continued = [], False
    for line in lines:
        if continued or line.startswith('$ '):
            kept.append(line.removeprefix('$ '))
            continued = line.endswith('\\')
    return '\n'.join(kept)
