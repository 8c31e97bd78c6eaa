"""Which steps of a plan still have to run."""

from __future__ import annotations

from collections.abc import Sequence

from distforget.placement import Placement
from distforget.plan import Plan, Step
from distforget.remote import open_store
from distforget.store import Store


def is_complete(plan: Plan, placement: Placement) -> bool:
    """Whether each step is done, or has failed and is not to be retried."""
    store = open_store(placement.store)
    return not open_steps(list(plan.steps()), placement, store)


def open_steps(steps: Sequence[Step], placement: Placement, store: Store) -> list[Step]:
    """The steps that still have to run. Asks the store about all of them at once."""
    states = [step.inputs["state"] for step in steps if "state" in step.inputs]
    done = store.done(step.key for step in (*steps, *states))
    tried = store.attempted()

    def is_open(step: Step) -> bool:
        if step.key in done:
            return False
        if "state" in step.inputs and step.inputs["state"].key not in done:
            return False  # nothing is there to be attacked or scored
        if step.stage != "cell" or placement.retry_failed or step.key not in tried:
            return True
        attempts = store.attempts(step.key)
        return not attempts or attempts[-1].state != "failed"

    return [step for step in steps if is_open(step)]
