"""Profile: which kinds of operations the time of a training step goes to, for each model.

TensorFlow's profiler records the second epoch of a training. Operations run side by side, so their times add up to more
than that of the epoch: the table has shares of the sum. Convolutions and matrix products are TensorFlow's, in oneDNN;
what the pipeline could still gain is in the other columns.
"""

import re
import tempfile
from collections import Counter
from pathlib import Path

from benchmarks import training
from benchmarks.common import Done, Result, contender, log
from stages.config import params
from stages.reporting.markdown import table

# Kind → names of TensorFlow's operations, the first that matches. Activations that XLA compiles are clusters.
KINDS = {
    "depthwise": "Depthwise",
    "convolutions": "Conv2D",
    "matrix products": "MatMul",
    "pooling": "Pool",
    "normalization": "BatchNorm",
    "activations": "Relu|Softmax|ExecuteAsyncOnStream",
    "optimizer": "ResourceApply|AssignSub|AssignAdd",
    "casts": "^Cast$",
}
REST = "rest"


def measure(quick: bool) -> Result:
    """Every model of params.yaml; with `quick` one of them for a short time."""
    cells = []
    for name in ["mnist_cnn"] if quick else params.load().models:
        with contender(trace, name, 0.1 if quick else 1.0) as run_round:
            times: Counter[str] = Counter(run_round().value)
        shares = {kind: times[kind] / times.total() for kind in (*KINDS, REST)}
        log(f"{name}: " + ", ".join(f"{kind} {share:.0%}" for kind, share in shares.items()))
        cells.append([f"`{name}`", *(f"{share:.0%}" if share >= 0.005 else "" for share in shares.values())])
    text = "Shares of the summed times of all operations, in the second epoch of a training with its validation:"
    return Result([], [], [text, table(["Model", *KINDS, REST], cells, "l" + "r" * len(shares))])


def trace(done: Done, name: str, seconds: float) -> None:
    """Train a model for two epochs, and pass on what each kind of operation took in the second, in seconds."""
    import tensorflow as tf

    with tempfile.TemporaryDirectory() as folder:
        epochs = 0

        def profile(_: object) -> None:
            nonlocal epochs
            epochs += 1
            if epochs == 1:
                tf.profiler.experimental.start(folder)
            if epochs == 2:
                tf.profiler.experimental.stop()

        training.pipeline(profile, [name], 1, seconds)
        (recorded,) = Path(folder).rglob("*.xplane.pb")
        done(_times(recorded))


def _times(recorded: Path) -> Counter[str]:
    """Seconds of each kind, over all threads, in a file of TensorFlow's profiler."""
    from tensorflow.tsl.profiler.protobuf import xplane_pb2

    space = xplane_pb2.XSpace()
    space.ParseFromString(recorded.read_bytes())
    times: Counter[str] = Counter()
    for plane in space.planes:
        for line in plane.lines:
            if line.name.startswith("tf_Compute"):
                for event in line.events:
                    if kind := _kind(plane.event_metadata[event.metadata_id].name):
                        times[kind] += event.duration_ps / 1e12
    return times


def _kind(event: str) -> str | None:
    """The kind of an event: those of operations are called NODE:OPERATION, the others are TensorFlow's own work."""
    node, _, operation = event.rpartition(":")
    if "ExecuteAsyncOnStream" not in operation and (not node or ":" in node):
        return None
    return next((kind for kind, pattern in KINDS.items() if re.search(pattern, operation)), REST)
