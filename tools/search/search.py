"""`make search MODEL=mnist_dense TRIALS=40 JOBS=2`: find hyperparameters with Optuna; each trial is a DVC experiment.

The study lies in .dvc/tmp/search/NAME.db, so a search that was killed goes on where it was.
"""

import math
import selectors
import signal
import sys
from collections.abc import Iterator

from optuna.exceptions import StorageInternalError
from optuna.trial import Trial, TrialState
from sqlalchemy.exc import SQLAlchemyError

from stages.config import params
from stages.config.messages import lookup
from stages.config.references import check_change
from stages.config.schema import Params
from stages.runtime.cli import run
from stages.runtime.errors import UserError
from stages.runtime.progress import progress
from stages.tracking import parent
from tools.lib import search_report, trials
from tools.lib.exclusive import exclusive
from tools.lib.search_study import FOLDER, SearchStudy
from tools.lib.trials import RunningTrial

SAMPLERS = ("tpe", "grid")
HOPELESS = 3  # a search ends if its first trials all fail


def search(name: str, count: str, jobs: str, sampler: str) -> None:
    """Run trials until `count` of them are finished, keep the best as a DVC experiment, and write the report.

    Args:
        name: the model.
        count: of trials that are complete, pruned or failed, with those of earlier runs.
        jobs: trials that run at the same time.
        sampler: `tpe`, or `grid` for an even grid of at most `count` points.

    Raises:
        UserError: params.yaml or an argument is not valid, another search of this model runs, all trials failed, or
            the study is corrupt or on a full disk.
    """
    values = params.load()
    lookup(values.models, name, "models")
    if sampler not in SAMPLERS:
        raise UserError(f"SAMPLER: {sampler!r}: it should be one of {', '.join(SAMPLERS)}")
    numbers = _positive("TRIALS", count), _positive("JOBS", jobs)
    # A second search of the model would start trials, too, and remove those of this one
    message = f"search {name}: another search of this model runs; wait for it, or raise its JOBS"
    with exclusive(FOLDER / f"{name}.lock", message):
        try:
            Search(values, name, *numbers, sampler).run()
        except (StorageInternalError, SQLAlchemyError) as error:
            what = getattr(error, "orig", None) or getattr(error.__cause__, "orig", error)  # SQLite's own error
            raise UserError(
                f"{FOLDER / name}.db: {' '.join(str(what).split())}; if the disk is not full, remove this file to "
                "start again, which also removes the experiments of the trials"
            ) from None


class Search:
    """A search that runs: at most `jobs` trials at a time, in one thread."""

    def __init__(self, values: Params, name: str, count: int, jobs: int, sampler: str) -> None:
        self.values, self.name, self.count, self.jobs, self.sampler = values, name, count, jobs, sampler
        self.study = SearchStudy(values, name, sampler, count)
        self.running: dict[int, tuple[Trial, RunningTrial]] = {}  # by the file descriptor of their output
        self.environment: dict[str, str] = {}

    def run(self) -> None:
        """Run the trials that are missing, and report."""
        self._recover()
        dataset, attributes = self.values.resolved_models[self.name].dataset, self.study.study.user_attrs
        run_id = parent.start(dataset, f"search {self.name} ({self.sampler})", attributes.get("mlflow_run"))
        if run_id:
            self.study.study.set_user_attr("mlflow_run", run_id)
            self.environment = {parent.VARIABLE: run_id}
        status, done = "FAILED", len(self.study.finished)
        try:
            for line in progress(self._results(), self.count, f"search {self.name}", "trials", initial=done):
                print(line, flush=True)
            status = "FINISHED"
        except KeyboardInterrupt:
            status = "KILLED"
            print("stopping the trials", file=sys.stderr, flush=True)
        finally:
            self._stop_all()
            best = self.study.best
            if run_id:
                tags = {f"best.{key}": value for key, value in best.params.items()} if best else {}
                parent.end(run_id, status, tags, {"validation_accuracy": best.value or 0.0} if best else {})
        if status == "KILLED":
            sys.exit(f"interrupted after {len(self.study.finished)} of {self.count} trials: the same command resumes")
        if best is None:
            raise UserError(f"search {self.name}: no trial succeeded; their logs are in {FOLDER / self.name}")
        print(search_report.write(self.study.study, self.study.finished, self.name, self.sampler))
        print(f"\nThe best trial is an experiment: dvc exp apply {self._experiment(best.number)}")

    def _recover(self) -> None:
        """Stop what a search that was killed left running, and try its values again."""
        for trial in self.study.interrupted:
            trials.stop_orphan(trial.user_attrs.get("process", []))
            self.study.put_back(trial.number)
        trials.remove_folders(self._experiment("*"))
        best = self.study.best
        trials.remove_experiments(self._experiment("*"), self._experiment(best.number) if best else "")

    def _results(self) -> Iterator[str]:
        """Run trials and yield a line for each that is finished."""
        with selectors.DefaultSelector() as selector:
            while True:
                while self._may_start() and (trial := self.study.ask()):
                    if line := self._without_run(trial):
                        yield line
                        continue
                    process = self._start(trial)
                    selector.register(process.output, selectors.EVENT_READ)
                    self.running[process.output.fileno()] = trial, process
                if not self.running:
                    return
                for key, _ in selector.select(timeout=1):
                    if self._is_over(*self.running[key.fd]):
                        selector.unregister(key.fileobj)
                        trial, process = self.running.pop(key.fd)
                        process.end()
                        yield from self._finish(trial, process)
                for _, process in self.running.values():
                    if process.reason:
                        process.stop()  # kills it if it did not react for long

    def _may_start(self) -> bool:
        finished = self.study.finished
        if len(finished) >= HOPELESS and all(trial.state == TrialState.FAIL for trial in finished):
            return False
        free = len(self.running) < self.jobs and len(finished) + len(self.running) < self.count
        return free and all(process.is_started for _, process in self.running.values())

    def _without_run(self, trial: Trial) -> str:
        """The line of a trial whose values were tried before or are not valid; empty if it has to run."""
        if same := self.study.same(trial):
            for epoch, accuracy in same.intermediate_values.items():
                trial.report(accuracy, epoch)
            trial.set_user_attr("same_as", same.number)
            self.study.study.tell(trial, same.value if same.state == TrialState.COMPLETE else None, state=same.state)
            return self._line(trial, f"as trial {same.number}")
        try:
            check_change(self.values, self.values.models[self.name], trial.params, "params.yaml")
        except UserError as error:
            return self._fail(trial, str(error))
        return ""

    def _start(self, trial: Trial) -> RunningTrial:
        log = FOLDER / self.name / f"{self.sampler}-{trial.number}.log"
        process = RunningTrial(self._experiment(trial.number), self.name, trial.params, log, self.environment)
        trial.set_user_attr("process", process.identity)
        return process

    def _is_over(self, trial: Trial, process: RunningTrial) -> bool:
        """Read what a trial printed: report its epochs, and stop it if it is bad; whether its output has ended."""
        epochs = process.read()
        for epoch, loss, accuracy in epochs or ():
            if not math.isfinite(loss):
                process.stop("the loss is not a number")
            elif epoch not in self.study.study.trials[trial.number].intermediate_values:
                trial.report(accuracy, epoch)
                if trial.should_prune():
                    process.stop("pruned")
        if process.is_foreign:
            process.stop("it ran the experiment of another process")
        return epochs is None

    def _finish(self, trial: Trial, process: RunningTrial) -> Iterator[str]:
        """Tell Optuna what became of a trial, and keep its experiment only if it is the best."""
        before, experiment = self.study.best, process.experiment
        accuracy = trials.accuracy(experiment, self.name)
        if accuracy is not None and process.reason != "the loss is not a number":
            self.study.study.tell(trial, accuracy)
            best = self.study.best
            if best and best.number != trial.number:
                trials.remove_experiments(experiment)
            elif before:
                trials.remove_experiments(self._experiment(before.number))
            yield self._line(trial, f"{accuracy:.2%}")
        elif process.reason == "pruned":
            self.study.study.tell(trial, state=TrialState.PRUNED)
            yield self._line(trial, "pruned")
        elif process.is_foreign or (process.process.returncode == 0 and not process.reason):
            self.study.put_back(trial.number)  # another process took this experiment from DVC's stash
        else:
            trials.remove_experiments(experiment)
            yield self._fail(trial, process.reason or process.error())

    def _fail(self, trial: Trial, why: str) -> str:
        trial.set_user_attr("error", why)
        self.study.study.tell(trial, state=TrialState.FAIL)
        return self._line(trial, f"failed: {why}")

    def _line(self, trial: Trial, outcome: str) -> str:
        best = self.study.best
        text = f"trial {trial.number}: {outcome}; {search_report.assignments(trial.params)}"
        return text + (f"; best {best.value:.2%}, trial {best.number}" if best else "")

    def _stop_all(self) -> None:
        for _, process in self.running.values():
            if process.is_started:
                process.stop("interrupted")
        for _, process in self.running.values():
            process.end()

    def _experiment(self, number: int | str) -> str:
        return f"search-{self.name}-{self.sampler}-{number}"


def _positive(what: str, text: str) -> int:
    if not text.isdecimal() or not 0 < int(text) < 100_000:
        raise UserError(f"{what}: {text!r}: it should be a whole number from 1 to 99999")
    return int(text)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    run(search, "model", "trials", "jobs", "sampler")
