"""`make search MODEL=mnist_dense TRIALS=40 JOBS=2`: find hyperparameters with Optuna; each trial is a DVC experiment.

The study lies in .dvc/tmp/search/NAME.db, so a search that was killed goes on where it was.
"""

import math
import signal
import sys
import threading
from concurrent.futures import ThreadPoolExecutor, wait

from optuna.exceptions import StorageInternalError
from optuna.trial import Trial, TrialState
from sqlalchemy.exc import SQLAlchemyError

from stages.config import params
from stages.config.messages import lookup
from stages.config.references import check_change
from stages.config.schema import Params
from stages.runtime.cli import run
from stages.runtime.errors import UserError
from stages.tracking import parent
from tools.lib import search_report, trials
from tools.lib.exclusive import exclusive
from tools.lib.git import check_clone
from tools.lib.search_study import FOLDER, START_AGAIN, SearchStudy
from tools.lib.trials import RunningTrial

SAMPLERS = ("tpe", "grid")
HOPELESS = 3  # a search ends if its first trials all fail, or if DVC stores no result of so many in a row
NOT_FINITE = "the loss is not a number"


def search(name: str, count: str, jobs: str, sampler: str) -> None:
    """Run trials until `count` of them are finished, keep the best as a DVC experiment, and write the report.

    Args:
        name: the model.
        count: number of trials that are complete, pruned or failed, with those of earlier runs.
        jobs: trials that run at the same time.
        sampler: `tpe`, or `grid` for an even grid of at most `count` points.

    Raises:
        UserError: params.yaml or an argument is not valid, DVC cannot run experiments here, another search of this
            model runs, all trials failed, or the study is corrupt or on a full disk.
    """
    values = params.load()
    lookup(values.models, name, "models")
    if sampler not in SAMPLERS:
        raise UserError(f"SAMPLER: {sampler!r}: it should be one of {', '.join(SAMPLERS)}")
    numbers = _positive("TRIALS", count), _positive("JOBS", jobs)
    check_clone()
    # A second search of the model would start trials, too, and remove those of this one
    message = f"search {name}: another search of this model runs; wait for it, or raise its JOBS"
    with exclusive(FOLDER / f"{name}.lock", message):
        try:
            Search(values, name, *numbers, sampler).run()
        except (StorageInternalError, SQLAlchemyError) as error:
            what = getattr(error, "orig", None) or getattr(error.__cause__, "orig", error)  # SQLite's own error
            reason = " ".join(str(what).split())
            raise UserError(
                f"{FOLDER / name}.db: {reason}; if the disk is full, free some space, {START_AGAIN}"
            ) from None


class Search:
    """A search that runs: `jobs` threads, each with one trial at a time."""

    def __init__(self, values: Params, name: str, count: int, jobs: int, sampler: str) -> None:
        self.values, self.name, self.count, self.jobs, self.sampler = values, name, count, jobs, sampler
        self.study = SearchStudy(values, name, sampler, count)
        self.running = set[RunningTrial]()
        self.environment: dict[str, str] = {}
        self._lock = threading.RLock()  # for everything but waiting for trials
        self._is_stopping = False
        self._without_result = 0  # trials in a row

    def run(self) -> None:
        """Run the trials that are missing, and report."""
        self._recover()
        dataset, attributes = self.values.resolved_models[self.name].dataset, self.study.study.user_attrs
        run_id = parent.start(dataset, f"search {self.name} ({self.sampler})", attributes.get("mlflow_run"))
        if run_id:
            self.study.study.set_user_attr("mlflow_run", run_id)
            self.environment = {parent.VARIABLE: run_id}
        status = "FAILED"
        try:
            status = "FINISHED" if self._run_trials() else "KILLED"
        finally:
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

    def _run_trials(self) -> bool:
        """Run trials in threads; whether they were not interrupted."""
        is_interrupted = False
        with ThreadPoolExecutor(self.jobs) as pool:
            threads = [pool.submit(self._work) for _ in range(self.jobs)]
            while True:
                try:
                    wait(threads)
                    break
                except KeyboardInterrupt:
                    is_interrupted = True
                    print("stopping the trials", file=sys.stderr, flush=True)
                    self._stop()
        for thread in threads:
            thread.result()
        return not is_interrupted

    def _work(self) -> None:
        """Run one trial after the other."""
        try:
            while trial := self._next():
                if not self._is_known(trial):
                    self._run_trial(trial)
        except BaseException:
            self._stop()
            raise

    def _next(self) -> Trial | None:
        with self._lock:
            finished = self.study.finished
            is_hopeless = len(finished) >= HOPELESS and all(trial.state == TrialState.FAIL for trial in finished)
            is_over = self._is_stopping or is_hopeless or len(self.study.begun) >= self.count
            return None if is_over else self.study.ask()

    def _is_known(self, trial: Trial) -> bool:
        """Whether the values of a trial were tried before or are not valid; then it is finished."""
        with self._lock:
            if same := self.study.same(trial):
                for epoch, accuracy in same.intermediate_values.items():
                    trial.report(accuracy, epoch)
                value = same.value if same.state == TrialState.COMPLETE else None
                self._tell(trial, same.state, f"as trial {same.number}", value)
                return True
            try:
                check_change(self.values, self.values.models[self.name], trial.params, "params.yaml")
            except UserError as error:
                self._fail(trial, str(error))
                return True
        return False

    def _run_trial(self, trial: Trial) -> None:
        log = FOLDER / self.name / f"{self.sampler}-{trial.number}.log"
        trials.handing_over.acquire()
        if self._is_stopping:
            trials.handing_over.release()
            with self._lock:
                self.study.put_back(trial.number)
            return
        process = RunningTrial(self._experiment(trial.number), self.name, trial.params, log, self.environment)
        with self._lock:
            self.running.add(process)
            if self._is_stopping:  # since then
                process.stop("interrupted")
        try:
            print(f"trial {trial.number}: started; {search_report.assignments(trial.params)}; {log}", flush=True)
            with self._lock:
                trial.set_user_attr("process", process.identity)
            for epoch, loss, accuracy in process.epochs():
                with self._lock:
                    if not math.isfinite(loss):
                        process.stop(NOT_FINITE)
                    elif epoch not in self.study.study.trials[trial.number].intermediate_values:
                        trial.report(accuracy, epoch)
                        if trial.should_prune():
                            process.stop("pruned")
        except BaseException:
            process.stop("interrupted")
            process.wait()
            raise
        with self._lock:
            self.running.remove(process)
            self._finish(trial, process)

    def _finish(self, trial: Trial, process: RunningTrial) -> None:
        """Tell Optuna what became of a trial, and keep its experiment only if it is the best."""
        before, accuracy = self.study.best, trials.accuracy(process.experiment, self.name)
        has_no_result = accuracy is None and process.process.returncode == 0 and not process.reason
        self._without_result = self._without_result + 1 if has_no_result else 0
        if accuracy is not None and process.reason != NOT_FINITE:
            self._tell(trial, TrialState.COMPLETE, f"{accuracy:.2%}", accuracy)
            best = self.study.best
            if best and best.number != trial.number:
                trials.remove_experiments(process.experiment)
            elif before:
                trials.remove_experiments(self._experiment(before.number))
        elif process.reason == "pruned":
            self._tell(trial, TrialState.PRUNED, "pruned")
        elif process.reason == "interrupted":
            self.study.put_back(trial.number)
        elif has_no_result:  # another process may have taken this experiment from DVC's stash
            self.study.put_back(trial.number)
            if self._without_result >= HOPELESS:
                raise UserError(
                    f"search {self.name}: DVC ran {HOPELESS} trials and stored no result; see {process.log}"
                )
        else:
            trials.remove_experiments(process.experiment)
            self._fail(trial, process.reason or process.error())

    def _fail(self, trial: Trial, why: str) -> None:
        trial.set_user_attr("error", why)
        self._tell(trial, TrialState.FAIL, f"failed: {why}")

    def _tell(self, trial: Trial, state: TrialState, outcome: str, value: float | None = None) -> None:
        self.study.study.tell(trial, value, state=state)
        best = self.study.best
        text = f"trial {trial.number}: {outcome}; {search_report.assignments(trial.params)}"
        print(text + (f"; best {best.value:.2%}, trial {best.number}" if best else ""), flush=True)

    def _stop(self) -> None:
        with self._lock:
            self._is_stopping = True
            for process in self.running:
                process.stop("interrupted")

    def _experiment(self, number: int | str) -> str:
        return f"search-{self.name}-{self.sampler}-{number}"


def _positive(what: str, text: str) -> int:
    if not text.isdecimal() or not 0 < int(text) < 100_000:
        raise UserError(f"{what}: {text!r}: it should be a whole number from 1 to 99999")
    return int(text)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    run(search, "model", "trials", "jobs", "sampler")
