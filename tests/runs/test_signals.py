"""A signal is not lost where Python drops the exception that it raises."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPT = """
import os, signal, sys, weakref
from synthgen.errors import one_line_errors
from synthgen.runs.progress import progress

class Held: ...

def callback(_):
    os.kill(os.getpid(), getattr(signal, sys.argv[1]))
    for _ in range(1000): pass  # the handler runs in here, and what it raises goes no further

with one_line_errors(), progress("work", 10) as bar:
    held = Held()
    watch = weakref.ref(held, callback)
    del held
    print("goes on", flush=True)
    bar.advance()
    print("and on")
"""


@pytest.mark.parametrize(("name", "code", "word"), [("SIGINT", 130, "interrupted"), ("SIGTERM", 143, "terminated")])
def test_a_signal_in_the_callback_of_a_weak_reference_ends_the_command_all_the_same(name, code, word):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "SYNTHGEN_QUIET": "1"}
    done = subprocess.run([sys.executable, "-c", SCRIPT, name], env=environment, capture_output=True, text=True)
    assert done.stdout == "goes on\n"
    assert (done.returncode, done.stderr) == (code, f"stopped: {word}; nothing half-written was left behind\n")
