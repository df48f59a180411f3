"""The trials of a search in Optuna: which one comes next, what became of each. They outlive the process.

A trial that was interrupted counts as if it had never been: its values are tried again under the next number, and the
random numbers of a trial depend on how many came before it. So a search that was killed tries what it would have tried.
Optuna's own heartbeat would count it as failed, and try its values again only after a time without a sign of life.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from dvc.exceptions import DvcException
from dvc.repo import Repo
from optuna.trial import FrozenTrial, Trial, TrialState

from stages.config.flatten import flatten
from stages.config.schema import Params
from stages.runtime import paths
from stages.runtime.errors import UserError
from tools.lib import search_space
from tools.lib.search_space import Space

FOLDER = Path(".dvc/tmp/search")
STARTUP = 5  # random trials before the results of others guide the search and prune
WARMUP = 0.25  # of the epochs: no trial is pruned before
INTERRUPTED = "interrupted"
ABSENT = "–"
START_AGAIN = "or remove the file to start again, which also removes the experiments of the trials"


class SearchStudy:
    """The trials of one model with one sampler."""

    def __init__(self, values: Params, name: str, sampler: str, count: int) -> None:
        """Open the study of an earlier run, or a new one.

        Args:
            values: params.yaml.
            name: the model.
            sampler: `tpe` or `grid`.
            count: number of trials, which the size of a grid depends on.

        Raises:
            UserError: the study has trials with other params, code or data.
        """
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self.model = values.resolved_models[name]
        self.seed = values.seed
        self.space = search_space.space(values, name)
        self.path = FOLDER / f"{name}.db"
        FOLDER.mkdir(parents=True, exist_ok=True)
        self.study = optuna.create_study(
            storage=f"sqlite:///{self.path}",
            study_name=sampler,
            direction="maximize",
            load_if_exists=True,
            pruner=optuna.pruners.MedianPruner(STARTUP, max(1, round(WARMUP * self.model.epochs))),
        )
        self._check(identity(name, self.space))
        self.is_grid = sampler == "grid"
        for point in search_space.grid(self.space, count) if self.is_grid else ():
            self.study.enqueue_trial(point, skip_if_exists=True)

    @property
    def finished(self) -> list[FrozenTrial]:
        """Trials that are complete, pruned or failed, without those that were interrupted."""
        return [trial for trial in self.begun if trial.state.is_finished()]

    @property
    def begun(self) -> list[FrozenTrial]:
        """Trials that are finished or run, without those that were interrupted."""
        trials = self.study.get_trials(deepcopy=False)
        return [trial for trial in trials if trial.state != TrialState.WAITING and INTERRUPTED not in trial.user_attrs]

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
        self.study.enqueue_trial(trial.params)
        Trial(self.study, trial._trial_id).set_user_attr(INTERRUPTED, True)
        self.study.tell(number, state=TrialState.FAIL)

    def ask(self) -> Trial | None:
        """The next trial; None if the grid has no more."""
        tried = self.begun
        if not self.study.get_trials(states=(TrialState.WAITING,)):
            if self.is_grid:
                return None
            if not tried and (own := search_space.current(self.model, self.space)):
                self.study.enqueue_trial(own)
        # Not seed + number: then the trials of two neighboring seeds would be the same, one later
        seed = int(np.random.SeedSequence([self.seed, len(tried)]).generate_state(1)[0])
        self.study.sampler = optuna.samplers.TPESampler(n_startup_trials=STARTUP, multivariate=True, seed=seed)
        return self.study.ask(search_space.distributions(self.space))

    def same(self, trial: Trial) -> FrozenTrial | None:
        """A complete or pruned trial with the same values."""
        states = TrialState.COMPLETE, TrialState.PRUNED
        return next((done for done in self.finished if done.params == trial.params and done.state in states), None)

    def _check(self, current: dict[str, Any]) -> None:
        known = self.study.user_attrs.get("identity", current if not self.study.trials else {})
        for key in {**known, **current}:
            old, new = (json.dumps(facts[key]) if key in facts else ABSENT for facts in (known, current))
            if old == new:
                continue
            changed = f"another {key}" if Path(key).exists() else f"{key} = {old}, now it is {new}"
            raise UserError(f"{self.path}: its trials had {changed}: restore that, {START_AGAIN}")
        self.study.set_user_attr("identity", current)


def identity(name: str, space: Space) -> dict[str, Any]:
    """What trials have in common and what decides their results, according to DVC: params, and hashes of code and data.

    Raises:
        UserError: dvc.yaml is not valid, or a file is missing.
    """
    facts: dict[str, Any] = {f"search.{key}": entry.model_dump(exclude_none=True) for key, entry in space.items()}
    try:
        stages = Repo().stage.collect(f"evaluate@{name}", with_deps=True)
        made = [out.fs_path for stage in stages for out in stage.outs]
        for dep in (dep for stage in stages for dep in stage.deps):
            if dep.def_path == paths.PARAMS.as_posix():
                for key, value in dep.read_params().items():
                    facts |= flatten(value, key)
            elif not any(Path(dep.fs_path).is_relative_to(path) for path in made):
                facts[dep.def_path] = dep.get_hash().value
    except (DvcException, OSError) as error:
        raise UserError(f"dvc.yaml: {' '.join(str(error).split())}") from None
    searched = {f"models.{name}.{key}" for key in space}
    return json.loads(json.dumps({key: value for key, value in facts.items() if key not in searched}))
