"""`make search MODEL=mnist_dense TRIALS=40 JOBS=2`: find hyperparameters with Optuna; each trial is a DVC experiment.

The studies lie in .dvc/tmp/search/NAME.journal, so a search that was stopped or killed goes on where it was.
"""

import math
import re
import signal
import sys
import threading
from contextlib import closing, suppress

import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState

from stages.config import params
from stages.config.messages import lookup
from stages.config.schema import Params
from stages.runtime.cli import run
from stages.runtime.errors import UserError
from tools.lib import search_report, search_space, trials
from tools.lib.exclusive import exclusive
from tools.lib.git import check_clone
from tools.lib.search_report import DONE, assignments, best_of
from tools.lib.trials import FOLDER

STARTUP = 5  # random trials before the results of others guide the search and prune
WARMUP = 0.25  # of the epochs: no trial is pruned before
HOPELESS = 3  # a search ends if so many trials failed and none was complete


def search(name: str, count: str, jobs: str, sampler: str) -> None:
    """Run trials until `count` of them are complete or pruned, keep the best as a DVC experiment, and report.

    Args:
        name: the model.
        count: number of trials, including those of earlier runs. No run starts more than it misses.
        jobs: number of trials that run at the same time.
        sampler: `tpe`, or `grid` for each combination of the choices.

    Raises:
        UserError: params.yaml or an argument is not valid, DVC cannot run experiments here, another search of this
            model runs, no trial succeeded, or the file of the trials is corrupt.
    """
    values = params.load()
    lookup(values.models, name, "models")
    if not values.train.validation_fraction:
        raise UserError("params.yaml: train.validation_fraction: 0 leaves no image to compare trials by; set it to 0.1")
    numbers = _positive("TRIALS", count), _positive("JOBS", jobs)
    check_clone()
    # A second search of the model would start trials, too, and remove those of this one
    message = f"search {name}: another search of this model runs; wait for it, or raise its JOBS"
    with exclusive(FOLDER / f"{name}.lock", message):
        Search(values, name, sampler).run(*numbers)


class Search:
    """The trials of one model with one sampler, and the same params, code and data."""

    def __init__(self, values: Params, name: str, sampler: str) -> None:
        """Open the study of earlier runs, or a new one.

        Raises:
            UserError: there is no such sampler, the space is not valid for it, or the file of the trials is corrupt.
        """
        self.name = name
        self.space = search_space.space(values, name)
        self.own = search_space.current(values.models[name], self.space)
        make_sampler = search_space.sampler(sampler, self.space, STARTUP)
        digest = search_space.identity(name, sampler, self.space)
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
        self.study.sampler = make_sampler(seed=values.seed + len(self.study.trials))
        self.runner = trials.TrialRunner(name)
        self._concluding = threading.Lock()

    def run(self, count: int, jobs: int) -> None:
        """Run the trials that are missing, and report."""
        for trial in self.study.get_trials(states=(TrialState.RUNNING,)):  # of a search that was killed
            self.study.tell(trial.number, state=TrialState.FAIL)
            self.study.enqueue_trial(trial.params)
        trials.remove_folders(f"search-{self.name}-*")
        missing = count - len(self._done())
        if isinstance(self.study.sampler, optuna.samplers.GridSampler):
            if self.study.sampler.is_exhausted(self.study):  # Optuna would begin the grid again
                missing = min(missing, len(self.study.get_trials(states=(TrialState.WAITING,))))
        elif self.own and not self.study.trials:
            self.study.enqueue_trial(self.own)
        print(f"{self.experiment}: {len(self._done())} trials are done, {max(0, missing)} are to run", flush=True)
        if missing > 0:
            numbers = signal.SIGINT, signal.SIGTERM
            handlers = [signal.signal(number, lambda *_: self._stop()) for number in numbers]
            self.study.optimize(self._try, missing, n_jobs=jobs, catch=UserError, callbacks=[self._conclude])
            for number, handler in zip(numbers, handlers, strict=True):
                signal.signal(number, handler)
        if self.runner.is_stopping:
            sys.exit(f"interrupted after {len(self._done())} of {count} trials: the same command resumes")
        best = best_of(self.study)
        if best is None:
            raise UserError(f"search {self.name}: no trial succeeded; their logs are in {FOLDER / self.name}")
        print(search_report.write(self.study, self.name))
        print(f"\nThe best trial is an experiment: dvc exp apply {self.experiment}-{best.number}")

    def _done(self) -> list[FrozenTrial]:
        return self.study.get_trials(deepcopy=False, states=DONE)

    def _stop(self) -> None:
        print("stopping the trials", file=sys.stderr, flush=True)
        with suppress(RuntimeError):  # no trial has begun yet
            self.study.stop()
        self.runner.stop()

    def _try(self, trial: optuna.Trial) -> float:
        """The validation accuracy of a trial; a `UserError` says why it failed."""
        values = search_space.suggest(trial, self.space)
        for done in self._done():
            if done.params == values and done.state == TrialState.COMPLETE and done.value is not None:
                return done.value
        log = FOLDER / self.name / f"{self.study.study_name}-{trial.number}.log"
        experiment = f"{self.experiment}-{trial.number}"
        print(f"trial {trial.number}: started; {assignments(values)}; {log}", flush=True)
        try:
            with closing(self.runner.run(experiment, values, log)) as epochs:
                for epoch, loss, accuracy in epochs:
                    if not math.isfinite(loss):
                        raise UserError("the loss is not a number")
                    trial.report(accuracy, epoch)
                    if trial.should_prune():
                        raise optuna.TrialPruned
            return trials.accuracy(experiment, self.name)
        except UserError as error:
            trial.set_user_attr("error", str(error))
            if self.runner.is_stopping:
                self.study.enqueue_trial(values)
            raise

    def _conclude(self, study: optuna.Study, trial: FrozenTrial) -> None:
        """Say what became of a trial, and keep only the best experiment."""
        with self._concluding:
            best = best_of(study)
            outcomes = {TrialState.COMPLETE: f"{trial.value or 0:.2%}", TrialState.PRUNED: "pruned"}
            outcome = outcomes.get(trial.state, f"failed: {trial.user_attrs.get('error')}")
            of_best = f"; best {best.value:.2%}, trial {best.number}" if best else ""
            print(f"trial {trial.number}: {outcome}; {assignments(trial.params)}{of_best}", flush=True)
            finished = {each.number for each in study.get_trials(deepcopy=False) if each.state.is_finished()}
            kept = {best.number} if best else set()
            trials.remove_experiments(f"{self.experiment}-{number}" for number in finished - kept)
        if len(finished) >= HOPELESS and not self._done():
            study.stop()


def _positive(what: str, text: str) -> int:
    if not re.fullmatch(r"[1-9][0-9]{0,4}", text):
        raise UserError(f"{what}: {text!r}: it should be a whole number from 1 to 99999")
    return int(text)


if __name__ == "__main__":
    run(search, "model", "trials", "jobs", "sampler")
