"""The command line of every stage and tool: positional names in, one-line errors and exit codes out."""

import errno
import io
import os
import re
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path

from stages.runtime.errors import UserError, printable
from stages.runtime.temporary import check_history, missing_code

INTERRUPTED = "interrupted: `dvc repro` continues after the last finished stage"


def run(command: Callable[..., None], *names: str) -> None:
    """Call `command` with the arguments that `names` describe; turn its failure into one line and exit code 1.

    The argument of a stage may be DVC's name of it: train@mnist_cnn, or ../dvc.yaml:train@mnist_cnn in a subfolder.
    Anything but a `UserError`, an `OSError` that names a file, or Ctrl-C is our bug and keeps its traceback.
    """
    module = Path(sys.argv[0])
    arguments = sys.argv[1:]
    if module.parent.name == "stages":
        arguments = [re.sub(rf"^(.*:)?{module.stem}\w*@", "", argument) for argument in arguments]
    if len(arguments) != len(names):
        sys.exit(f"usage: python -m {' '.join([f'{module.parent.name}.{module.stem}', *map(str.upper, names)])}")

    def checked() -> None:
        check_history()
        command(*arguments)

    guard(checked)


def guard(command: Callable[[], None]) -> None:
    """Call `command`, which has parsed its arguments itself, and treat its failures as `run` does."""
    if isinstance(sys.stdout, io.TextIOWrapper):  # the name of a class, on a terminal that has not all characters
        sys.stdout.reconfigure(errors="backslashreplace")
    report = sys.unraisablehook

    def interrupt_again(unraisable: "sys.UnraisableHookArgs") -> None:
        """Python would print what is raised in a `__del__` or a callback of its memory, and carry on."""
        if unraisable.exc_type is KeyboardInterrupt:
            threading.Timer(0.01, os.kill, [os.getpid(), signal.SIGINT]).start()  # once it is out of there
        else:
            report(unraisable)

    sys.unraisablehook = interrupt_again
    try:
        command()
    except UserError as error:
        message = "\n".join(map(printable, str(error).split("\n")))  # names in it may contain anything
        sys.exit(f"error: {message}{missing_code()}")
    except OSError as error:
        if error.filename is None and error.errno != errno.ENOSPC:
            raise
        sys.exit(f"error: {printable(str(error.filename or 'no space left'))}: {error.strerror}")
    except KeyboardInterrupt:
        sys.exit("interrupted" if "tools" in Path(sys.argv[0]).parts[-3:] else INTERRUPTED)
    finally:
        sys.unraisablehook = report
