"""`make search MODEL=mnist_dense TRIALS=40 JOBS=2`: find hyperparameters with Optuna; each trial is a DVC experiment.

The studies lie in .dvc/tmp/search/NAME.journal, so a search that was stopped or killed goes on where it was.
"""

import hashlib
import json
import math
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import warnings
from collections.abc import Generator, Iterable, Iterator, Mapping
from contextlib import closing, suppress
from pathlib import Path
from typing import IO, Any

import numpy as np
import optuna
from dvc.dependency.param import ParamsDependency
from dvc.exceptions import DvcException
from dvc.repo import Repo
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState

from stages.config import params
from stages.config.flatten import flatten
from stages.config.messages import lookup
from stages.config.models import ModelConfig
from stages.config.schema import Params
from stages.config.sections import ParameterConfig, Value
from stages.plots._style import styled
from stages.reporting.markdown import table
from stages.runtime import paths
from stages.runtime.cli import run
from stages.runtime.errors import UserError
from stages.runtime.files import atomic_write
from tools.lib.exclusive import exclusive
from tools.lib.git import experiments, git

FOLDER = Path(".dvc/tmp/search")  # studies and logs
REPORTS = Path("reports/search")
DONE = (TrialState.COMPLETE, TrialState.PRUNED)
STARTUP = 5  # random trials before the results of others guide the search and prune
WARMUP = 0.25  # of the epochs: no trial is pruned before
HOPELESS = 3  # a search ends if so many trials failed and none was complete
SHOWN = 5  # trials in the table
FEWEST = 8  # complete trials to estimate how much each key matters
GRACE = 20.0  # seconds between the request to stop and the kill
EPOCH = re.compile(r"^epoch (\d+)/\d+: loss (\S+),.* accuracy (\S+)$")  # what stages.train prints
STARTED = re.compile(r"^Reproducing experiment '(.+)'$")
ERROR = re.compile(r"(error|\w+Error|ERROR): ")
EXECUTORS = Path(".dvc/tmp/exps")  # DVC's: run/REVISION/REVISION.run names an experiment and its folder

Values = dict[str, Value]
Space = dict[str, ParameterConfig]


def search(name: str, count: str, jobs: str) -> None:
    """Run trials until `count` of them are complete or pruned, keep the best as a DVC experiment, and report.

    Args:
        name: the model.
        count: number of trials, including those of earlier runs. No run starts more than it misses.
        jobs: number of trials that run at the same time.

    Raises:
        UserError: params.yaml or an argument is not valid, DVC cannot run experiments here, another search of this
            model runs, no trial succeeded, or the file of the trials is corrupt.
    """
    values = params.load()
    lookup(values.models, name, "models")
    if not values.train.validation_fraction:
        raise UserError("params.yaml: train.validation_fraction: 0 leaves no image to compare trials by; set it to 0.1")
    numbers = _positive("TRIALS", count), _positive("JOBS", jobs)
    _check_clone()
    # A second search of the model would start trials, too, and remove those of this one
    message = f"search {name}: another search of this model runs; wait for it, or raise its JOBS"
    with exclusive(FOLDER / f"{name}.lock", message):
        Search(values, name).run(*numbers)


class Search:
    """The trials of one model with the same params, code and data."""

    def __init__(self, values: Params, name: str) -> None:
        """Open the study of earlier runs, or a new one.

        Raises:
            UserError: the space is not valid, or the file of the trials is corrupt.
        """
        self.name = name
        self.space = search_space(values, name)
        self.own = current(values.models[name], self.space)
        digest = identity(name, self.space)
        self.experiment = f"search-{name}-{digest}"
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        warmup = max(1, round(WARMUP * values.resolved_models[name].epochs))
        path = FOLDER / f"{name}.journal"
        try:
            self.study = optuna.create_study(
                storage=JournalStorage(JournalFileBackend(str(path))),
                study_name=digest,
                direction="maximize",
                load_if_exists=True,
                pruner=optuna.pruners.MedianPruner(STARTUP, warmup),
            )
        except (ValueError, LookupError, AssertionError):  # a record is cut off, or none at all
            raise UserError(f"{path}: corrupt; remove it to start again") from None
        # Another seed after each interruption: the random trials of before would come again
        seed = values.seed + len(self.study.trials)
        self.study.sampler = optuna.samplers.TPESampler(n_startup_trials=STARTUP, multivariate=True, seed=seed)
        self._is_stopping = False
        self._running = set[subprocess.Popen[str]]()
        self._concluding = threading.Lock()
        # DVC hands experiments over through a stash, where the next process would take this one
        self._handing_over = threading.Lock()

    def run(self, count: int, jobs: int) -> None:
        """Run the trials that are missing, and report."""
        for trial in self.study.get_trials(states=(TrialState.RUNNING,)):  # of a search that was killed
            self.study.tell(trial.number, state=TrialState.FAIL)
            self.study.enqueue_trial(trial.params)
        _remove_folders(f"search-{self.name}-*")
        missing = count - len(self._done())
        if self.own and not self.study.trials:
            self.study.enqueue_trial(self.own)
        print(f"{self.experiment}: {len(self._done())} trials are done, {max(0, missing)} are to run", flush=True)
        if missing > 0:
            numbers = signal.SIGINT, signal.SIGTERM
            handlers = [signal.signal(number, lambda *_: self._stop()) for number in numbers]
            self.study.optimize(self._try, missing, n_jobs=jobs, catch=UserError, callbacks=[self._conclude])
            for number, handler in zip(numbers, handlers, strict=True):
                signal.signal(number, handler)
        if self._is_stopping:
            sys.exit(f"interrupted after {len(self._done())} of {count} trials: the same command resumes")
        best = _best(self.study)
        if best is None:
            raise UserError(f"search {self.name}: no trial succeeded; their logs are in {FOLDER / self.name}")
        print(report(self.study, self.name))
        print(f"\nThe best trial is an experiment: dvc exp apply {self.experiment}-{best.number}")

    def _done(self) -> list[FrozenTrial]:
        return self.study.get_trials(deepcopy=False, states=DONE)

    def _stop(self) -> None:
        """Interrupt all trials; kill them if this is called again. The first to end keeps others from starting."""
        print("stopping the trials", file=sys.stderr, flush=True)
        number = signal.SIGKILL if self._is_stopping else signal.SIGINT
        self._is_stopping = True
        for process in list(self._running):
            _signal(process, number)

    def _try(self, trial: optuna.Trial) -> float:
        """The validation accuracy of a trial; a `UserError` says why it failed."""
        values = _suggest(trial, self.space)
        for done in self._done():
            if done.params == values and done.state == TrialState.COMPLETE and done.value is not None:
                return done.value
        log = FOLDER / self.name / f"{self.study.study_name}-{trial.number}.log"
        experiment = f"{self.experiment}-{trial.number}"
        print(f"trial {trial.number}: started; {_assignments(values)}; {log}", flush=True)
        try:
            with closing(self._run_trial(experiment, values, log)) as epochs:
                for epoch, loss, accuracy in epochs:
                    if not math.isfinite(loss):
                        raise UserError("the loss is not a number")
                    trial.report(accuracy, epoch)
                    if trial.should_prune():
                        raise optuna.TrialPruned
            return _accuracy(experiment, self.name)
        except UserError as error:
            trial.set_user_attr("error", str(error))
            if self._is_stopping:
                self.study.enqueue_trial(values)
            raise

    def _run_trial(self, experiment: str, values: Values, log: Path) -> Generator[tuple[int, float, float]]:
        """Run an experiment in a process group of its own until it ends, or until the generator is closed.

        Args:
            experiment: its name.
            values: what to set in the model's entry, by dotted keys.
            log: file for what it prints.

        Yields:
            Epoch, training loss and validation accuracy.

        Raises:
            UserError: it failed, or `_stop` was called.
        """
        log.parent.mkdir(parents=True, exist_ok=True)
        current = ""  # DVC also runs what it finds of other processes
        with log.open("w", encoding="utf-8") as file:
            with self._handing_over:  # until it has started, DVC changes the stash, so nothing interrupts it
                if self._is_stopping:
                    raise UserError("interrupted")
                process = _start(experiment, self.name, values)
                lines = _lines(process, file)
                for line in lines:
                    if found := STARTED.match(line):
                        current = found[1]
                        break
                self._running.add(process)
            try:
                if self._is_stopping:  # since then
                    _signal(process, signal.SIGINT)
                for line in lines:
                    if found := STARTED.match(line):
                        current = found[1]
                    elif current == experiment and (found := EPOCH.match(line)):
                        yield int(found[1]), float(found[2]), float(found[3])
                process.wait()
            finally:
                _signal(process, signal.SIGINT)  # as Ctrl-C: DVC then removes the folder
                with suppress(subprocess.TimeoutExpired):
                    process.wait(GRACE)
                _signal(process, signal.SIGKILL)
                self._running.discard(process)
                _remove_folders(experiment)
        if self._is_stopping or process.wait():
            raise UserError("interrupted" if self._is_stopping else _reason(log))

    def _conclude(self, study: optuna.Study, trial: FrozenTrial) -> None:
        """Say what became of a trial, and keep only the best experiment."""
        with self._concluding:
            best = _best(study)
            outcomes = {TrialState.COMPLETE: f"{trial.value or 0:.2%}", TrialState.PRUNED: "pruned"}
            outcome = outcomes.get(trial.state, f"failed: {trial.user_attrs.get('error')}")
            of_best = f"; best {best.value:.2%}, trial {best.number}" if best else ""
            print(f"trial {trial.number}: {outcome}; {_assignments(trial.params)}{of_best}", flush=True)
            finished = {each.number for each in study.get_trials(deepcopy=False) if each.state.is_finished()}
            kept = {best.number} if best else set()
            _remove_experiments(f"{self.experiment}-{number}" for number in finished - kept)
        if self._is_stopping or (len(finished) >= HOPELESS and not self._done()):
            study.stop()  # here, in the thread of a trial: with several, Optuna lets no other one do it


def _check_clone() -> None:
    """Raise a `UserError` if DVC's experiments would fail, or be lost, for a reason that Git knows."""
    if git("rev-parse", "--is-shallow-repository") == "true":
        raise UserError("this is a shallow clone, in which DVC loses experiments: run `git fetch --unshallow`")
    if new := git("ls-files", "--others", "--exclude-standard", "--", "stages/*.py").split("\n")[0]:
        raise UserError(f"{new}: Git does not have this file, so it is absent in experiments: run `git add {new}`")


def _positive(what: str, text: str) -> int:
    if not re.fullmatch(r"[1-9][0-9]{0,4}", text):
        raise UserError(f"{what}: {text!r}: it should be a whole number from 1 to 99999")
    return int(text)


def search_space(params: Params, name: str) -> Space:
    """The section `search` for a model; without one, a tenth to ten times its learning rate and 1/2 to 2 batch sizes.

    Raises:
        UserError: `train`, or `synthetic` of the model, overrides a key, so that all trials would be the same.
    """
    model = params.models[name]
    batch_sizes = sorted({max(1, model.batch_size // 2), model.batch_size, 2 * model.batch_size})
    found = params.search.get(name) or {
        "learning_rate": ParameterConfig(low=model.learning_rate / 10, high=model.learning_rate * 10, log=True),
        "batch_size": ParameterConfig(choices=list(batch_sizes)),
    }
    for key in found:
        if getattr(params.train, key, None) is not None:
            raise UserError(f"params.yaml: train.{key}: it overrides the values that a search tries; set it to null")
        if key in model.synthetic and params.is_model_synthetic(name):
            section = f"models.{name}.synthetic"
            raise UserError(f"params.yaml: {section}.{key}: it overrides the values that a search tries; remove it")
    return found


def _suggest(trial: optuna.Trial, space: Space) -> Values:
    """The values of a trial, as Optuna's sampler chooses them."""
    values: Values = {}
    for key, parameter in space.items():
        low, high = parameter.low, parameter.high
        if parameter.choices is not None:
            values[key] = trial.suggest_categorical(key, parameter.choices)
        elif isinstance(low, int) and isinstance(high, int):
            values[key] = trial.suggest_int(key, low, high, log=parameter.log)
        elif low is not None and high is not None:
            values[key] = trial.suggest_float(key, low, high, log=parameter.log)
    return values


def current(model: ModelConfig, space: Space) -> Values | None:
    """The values of params.yaml if they lie in the space."""
    entry, values = flatten(model.model_dump()), Values()
    for key, parameter in space.items():
        value = values[key] = entry.get(key)
        if parameter.choices is not None:
            inside = value in parameter.choices
        else:
            inside = isinstance(value, int | float) and (parameter.low or 0) <= value <= (parameter.high or 0)
        if not inside:
            return None
    return values


def identity(name: str, space: Space) -> str:
    """Digest of all that decides the results of trials beside their values: params, and hashes of code and data.

    DVC says what these are. An earlier trial counts only if it has the same digest.

    Raises:
        UserError: dvc.yaml is not valid, or a file is missing.
    """
    facts: dict[str, Any] = {}
    try:
        stages = Repo().stage.collect(f"evaluate@{name}", with_deps=True)
        made = [out.fs_path for stage in stages for out in stage.outs]
        made.append(str(paths.PARAMS.absolute()))  # all of which is a dep of the stage that checks it
        for dep in (dep for stage in stages for dep in stage.deps):
            if isinstance(dep, ParamsDependency):
                for key, value in dep.read_params().items():
                    facts |= flatten(value, key)
            elif not any(Path(dep.fs_path).is_relative_to(path) for path in made):
                facts[dep.def_path] = dep.get_hash().value
    except (DvcException, OSError) as error:
        raise UserError(f"dvc.yaml: {' '.join(str(error).split())}") from None
    # Their values in params.yaml decide nothing
    facts |= {f"models.{name}.{key}": entry.model_dump() for key, entry in space.items()}
    return hashlib.md5(json.dumps(facts, sort_keys=True).encode(), usedforsecurity=False).hexdigest()[:7]


def _start(experiment: str, model: str, values: Values) -> "subprocess.Popen[str]":
    """Start the experiment of a trial of a model, with other values at the dotted keys of its entry."""
    sets = [f"++models.{model}.{key}={json.dumps(value)}" for key, value in values.items()]
    options = [text for each in sets for text in ("-S", each)]
    return subprocess.Popen(
        ["dvc", "--wait-for-lock", "exp", "run", "--temp", "-n", experiment, *options, f"evaluate@{model}"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        errors="replace",
        env={**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"},
        start_new_session=True,  # Ctrl-C reaches it through `_stop` alone
        # A shell that starts a search in the background ignores SIGINT, which `_stop` sends
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def _lines(process: "subprocess.Popen[str]", log: IO[str]) -> Iterator[str]:
    """What a process prints, line by line, which the log gets, too."""
    assert process.stdout
    for line in process.stdout:
        log.write(line)
        log.flush()
        yield line


def _signal(process: "subprocess.Popen[str]", number: signal.Signals) -> None:
    if process.poll() is None:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, number)


def _reason(log: Path) -> str:
    """The line of a log that says most about a failure."""
    lines = log.read_text(encoding="utf-8").splitlines()
    return next(iter([*filter(ERROR.match, lines), *reversed(lines)]), "no output").strip()[:300]


def _accuracy(experiment: str, model: str) -> float:
    """The validation accuracy of a model in an experiment; a `UserError` if DVC did not store it."""
    for found in experiments(experiment):
        return float(json.loads(git("show", f"{found.ref}:./{paths.metrics(model)}"))["validation_accuracy"])
    raise UserError(f"DVC stored no result of {experiment}")


def _remove_experiments(names: Iterable[str]) -> None:
    """Remove the experiments with these names, as far as there are any."""
    removed = set(names)
    for found in experiments("search-*"):
        if found.name in removed:
            git("update-ref", "-d", found.ref)


def _remove_folders(pattern: str) -> None:
    """Remove what a killed DVC left of experiments whose names match a pattern."""
    for path in EXECUTORS.glob("run/*/*.run"):
        with suppress(OSError, ValueError):
            info = json.loads(path.read_text(encoding="utf-8"))
            if Path(info["name"] or "").match(pattern):
                shutil.rmtree(info["root_dir"], ignore_errors=True)
                shutil.rmtree(path.parent)
                shutil.rmtree(EXECUTORS / "standalone/run" / path.parent.name, ignore_errors=True)


def _best(study: optuna.Study) -> FrozenTrial | None:
    """The trial with the best value, the first of equal ones; None if no trial is complete."""
    with suppress(ValueError):
        return study.best_trial
    return None


def report(study: optuna.Study, name: str) -> str:
    """Write all trials as CSV and Optuna's figures; return a table of the best trials as Markdown."""
    frame = study.trials_dataframe(("number", "state", "value", "duration", "params", "user_attrs"))
    frame["duration"] = frame["duration"].dt.total_seconds().round(1)
    frame["state"] = frame["state"].str.lower()
    frame = frame.rename(columns=lambda column: column.removeprefix("params_").removeprefix("user_attrs_"))
    with atomic_write(REPORTS / f"{name}.csv") as part:
        frame.to_csv(part, index=False)
    files = [REPORTS / f"{name}.csv", *_plot(study, name)]
    complete = frame[frame["state"] == "complete"]
    best = complete.nlargest(SHOWN, "value").drop(columns=["state", "duration", "error"], errors="ignore")
    best["value"] = best["value"].map("{:.2%}".format)
    counts = ", ".join(f"{count} {state}" for state, count in frame["state"].value_counts().items())
    explained = ""
    if len(complete) >= FEWEST and complete["value"].nunique() > 1:
        evaluator = optuna.importance.FanovaImportanceEvaluator(seed=0)
        shares = optuna.importance.get_param_importances(study, evaluator=evaluator)
        explained = "; variance explained: " + ", ".join(f"{key} {share:.0%}" for key, share in shares.items())
    rows = [[f"{cell:.6g}" if isinstance(cell, float) else cell for cell in row] for row in best.to_numpy(object)]
    return f"{table([*best], rows)}\n\n{counts}{explained}\nAll trials: {', '.join(map(str, files))}"


def _assignments(values: Mapping[str, Any]) -> str:
    """Values as `learning_rate=0.00123 batch_size=64`."""
    shown = {key: f"{value:.6g}" if isinstance(value, float) else value for key, value in values.items()}
    return " ".join(f"{key}={value}" for key, value in shown.items())


@styled
def _plot(study: optuna.Study, name: str) -> list[Path]:
    """Draw the history of the search, and the accuracy against each key; return the files."""
    from matplotlib import pyplot
    from optuna.visualization import matplotlib

    files = []
    for kind, draw in (("history", matplotlib.plot_optimization_history), ("values", matplotlib.plot_slice)):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            axes: Any = draw(study, target_name="validation accuracy")
        figure = np.ravel(axes)[0].figure
        files.append(REPORTS / f"{name}-{kind}.png")
        with atomic_write(files[-1]) as part:
            figure.savefig(part, format="png", dpi=110, bbox_inches="tight", metadata={"Software": None})
        pyplot.close(figure)
    return files


if __name__ == "__main__":
    run(search, "model", "trials", "jobs")
