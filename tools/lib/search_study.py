"""The trials of a search in Optuna: which one comes next, what became of each. They outlive the process.

A trial that was interrupted counts as if it had never been: its values are tried again under the next number, and the
random numbers of a trial depend on how many came before it. So a search that was killed tries what it would have tried.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from optuna.trial import FrozenTrial, Trial, TrialState

from stages.config.schema import Params
from stages.runtime.errors import UserError
from tools.lib import search_space
from tools.lib.revision import differences

FOLDER = Path(".dvc/tmp/search")
STARTUP = 5  # random trials before the results of others guide the search and prune
WARMUP = 0.25  # of the epochs: no trial is pruned before
INTERRUPTED = "interrupted"


class SearchStudy:
    """The trials of one model with one sampler."""

    def __init__(self, values: Params, name: str, sampler: str, count: int) -> None:
        """Open the study of an earlier run, or a new one.

        Args:
            values: params.yaml.
            name: the model.
            sampler: `tpe` or `grid`.
            count: of trials, which the size of a grid depends on.

        Raises:
            UserError: the study has trials with other params.
        """
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self.model = values.resolved_models[name]
        self.seed = values.seed
        self.space = search_space.space(values, name)
        self.grid = search_space.grid(self.space, count) if sampler == "grid" else None
        self.path = FOLDER / f"{name}.db"
        FOLDER.mkdir(parents=True, exist_ok=True)
        self.study = optuna.create_study(
            storage=f"sqlite:///{self.path}",
            study_name=sampler,
            direction="maximize",
            load_if_exists=True,
            pruner=optuna.pruners.MedianPruner(STARTUP, max(1, round(WARMUP * self.model.epochs))),
        )
        self._check_params(search_space.fixed(values, name, self.space))

    @property
    def finished(self) -> list[FrozenTrial]:
        """Trials that are complete, pruned or failed, without those that were interrupted."""
        return [trial for trial in self._counted() if trial.state.is_finished()]

    @property
    def best(self) -> FrozenTrial | None:
        """The trial with the best value, the first of equal ones; None if no trial is complete."""
        complete = [trial for trial in self.finished if trial.state == TrialState.COMPLETE]
        return max(complete, key=lambda trial: (trial.value or 0.0, -trial.number), default=None)

    @property
    def interrupted(self) -> list[FrozenTrial]:
        """Trials that an earlier process left running."""
        return self.study.get_trials(states=(TrialState.RUNNING,))

    def put_back(self, number: int) -> None:
        """Try the values of a trial that was interrupted again."""
        trial = self.study.trials[number]
        Trial(self.study, trial._trial_id).set_user_attr(INTERRUPTED, True)
        self.study.tell(number, state=TrialState.FAIL)
        self.study.enqueue_trial(trial.params)

    def ask(self) -> Trial | None:
        """The next trial; None if the grid has no more."""
        tried = [trial.params for trial in self._counted()]
        if not self.study.get_trials(states=(TrialState.WAITING,)):
            if self.grid is not None:
                point = next((point for point in self.grid if point not in tried), None)
                if point is None:
                    return None
                self.study.enqueue_trial(point)
            elif not tried and (own := search_space.current(self.model, self.space)):
                self.study.enqueue_trial(own)
        # Not seed + number: then the trials of two neighboring seeds would be the same, one later
        seed = int(np.random.SeedSequence([self.seed, len(tried)]).generate_state(1)[0])
        self.study.sampler = optuna.samplers.TPESampler(n_startup_trials=STARTUP, multivariate=True, seed=seed)
        return self.study.ask(search_space.distributions(self.space))

    def same(self, trial: Trial) -> FrozenTrial | None:
        """A complete or pruned trial with the same values."""
        states = TrialState.COMPLETE, TrialState.PRUNED
        return next((done for done in self.finished if done.params == trial.params and done.state in states), None)

    def _counted(self) -> list[FrozenTrial]:
        """All trials that were begun, without those that were interrupted."""
        trials = self.study.get_trials(deepcopy=False)
        return [trial for trial in trials if trial.state != TrialState.WAITING and INTERRUPTED not in trial.user_attrs]

    def _check_params(self, fixed: Mapping[str, Any]) -> None:
        for key, old, new in differences(self.study.user_attrs.get("fixed", fixed), fixed):
            raise UserError(
                f"{self.path}: its trials had {key} = {old}, now it is {new}: restore that in params.yaml, or remove "
                "the file to start again, which also removes the experiments of the trials"
            )
        self.study.set_user_attr("fixed", fixed)
