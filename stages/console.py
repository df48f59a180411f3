"""What every stage's command line has in common: one positional name, one-line errors, a quiet TensorFlow."""

import errno
import os
import re
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

INTERRUPTED = "interrupted: `dvc repro` goes on from the last finished stage"


class UserError(Exception):
    """Something the user can put right. The message is one line: the file or key, what is wrong, what to do."""


def run(stage: Callable[..., None], *names: str) -> None:
    """Call `stage` with the arguments that `names` describe; turn its failure into one line and exit code 1.

    A name may stand behind its stage's, as DVC has it: train@mnist_cnn. Anything but a `UserError`, an `OSError` that
    names a file, or Ctrl-C is a bug of ours and keeps its traceback.
    """
    command = Path(sys.argv[0])
    arguments = [re.sub(rf"^{command.stem}\w*@", "", argument) for argument in sys.argv[1:]]
    if len(arguments) != len(names):
        sys.exit(f"usage: python -m {' '.join([f'{command.parent.name}.{command.stem}', *map(str.upper, names)])}")
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _interrupt)
    try:
        stage(*arguments)
    except UserError as error:
        sys.exit(f"error: {error}")
    except OSError as error:
        if error.filename is None and error.errno != errno.ENOSPC:
            raise
        sys.exit(f"error: {error.filename or 'no space left'}: {error.strerror}")
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)


def _interrupt(number: int, frame: FrameType | None) -> None:
    """Ctrl-C. In a `__del__`, of which TensorFlow has many, an exception is printed and forgotten: wait for its end."""
    while frame:
        if frame.f_code.co_name == "__del__":
            threading.Timer(0.01, signal.raise_signal, [number]).start()
            return
        frame = frame.f_back
    raise KeyboardInterrupt


def import_tensorflow() -> None:
    """Import TensorFlow without its start-up notes, which no log level reaches: they precede its logging.

    Costs seconds, so call it when the parameters are known to be good.

    Keras imports whole libraries, where they are installed, for parts of it that no stage uses: a third of the time.
    They are hidden from it, but not from who imports them afterwards.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    modules: dict[str, Any] = sys.modules  # a name that stands for None there is as if it were not installed
    hidden = [name for name in ("sklearn", "matplotlib", "pandas") if name not in modules]
    modules.update(dict.fromkeys(hidden))
    try:
        with silent():
            import absl.logging
            import tensorflow as tf

            absl.logging.set_verbosity(absl.logging.ERROR)  # TFDS warns of its own deprecations
            tf.config.list_physical_devices()
            tf.zeros(1)  # the devices, too, have something to say when they are first used
    finally:
        for name in hidden:
            del modules[name]


@contextmanager
def silent() -> Iterator[None]:
    """Drop what is written to standard error at the level of the process; exceptions come through."""
    sys.stderr.flush()
    kept = os.dup(2)
    with open(os.devnull, "w") as nothing:
        os.dup2(nothing.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
