"""What DVC runs. Ctrl-C is one line from the first moment on, while a stage still imports what it needs."""

import sys
from types import TracebackType

_hook = sys.excepthook


def _say_interrupted(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    if issubclass(kind, KeyboardInterrupt):
        from stages.console import INTERRUPTED

        print(INTERRUPTED, file=sys.stderr)
    else:
        _hook(kind, error, trace)


sys.excepthook = _say_interrupted
