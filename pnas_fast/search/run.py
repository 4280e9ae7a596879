"""Everything a search opens, held together: folder, store, workers, listeners, strategy."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack, closing
from dataclasses import dataclass, field, replace
from pathlib import Path

from rich.console import Console

from pnas_fast.cli.ending import Ending, Stop
from pnas_fast.data.augmentation import in_words
from pnas_fast.data.digest import test_digest
from pnas_fast.engine.few_shot import REPTILE
from pnas_fast.evaluation.guard import make_evaluator
from pnas_fast.evaluation.profiling import trace_file
from pnas_fast.executors.inline import InlineExecutor
from pnas_fast.executors.local import LocalExecutor
from pnas_fast.executors.ray_cluster import Wish
from pnas_fast.objectives.aims import Aims
from pnas_fast.protocols import (
    DataSource,
    Evaluator,
    Event,
    Executor,
    Finished,
    Key,
    Listener,
    Measurement,
    Noted,
    Proposal,
    Said,
    Strategy,
    Task,
    Trial,
    child_seed,
)
from pnas_fast.runs.choice import best_of, split
from pnas_fast.runs.costs import settle_costs
from pnas_fast.runs.folder import CONFIG, TRIALS, check_same, locked, saved_config
from pnas_fast.runs.front import FrontKeeper
from pnas_fast.runs.history import is_finished, mark_finished, settle, settle_tests
from pnas_fast.runs.images import remember_images
from pnas_fast.runs.keeping import BestKeeper, NoteKeeper
from pnas_fast.runs.store import TrialStore
from pnas_fast.runs.weights import BEST, discard_all
from pnas_fast.search.aims import costs_of, deployment_of, make_aims, notes_on_aims
from pnas_fast.search.config import TABLE, SearchConfig
from pnas_fast.search.driver import Driver
from pnas_fast.search.measured import NOTE as FRONT_LATENCY
from pnas_fast.search.measured import measure_front
from pnas_fast.search.parts import make_spec, make_strategy, notes_on
from pnas_fast.search.placement import CPU, gpus
from pnas_fast.search.preflight import choose_placement, describe_choice
from pnas_fast.search.profiled import Profiled
from pnas_fast.search.remote import ray_executor
from pnas_fast.search.result import SearchResult
from pnas_fast.search.sources import opened
from pnas_fast.search.warming import warm_kernels
from pnas_fast.tracking.report import ReportWriter
from pnas_fast.tracking.search import KEPT, TrackedSearch
from pnas_fast.tracking.terminal import choose_display
from pnas_fast.tracking.trackers import Tracking
from pnas_fast.version import VERSION


@dataclass
class Listeners:
    """Tells every event to all of some listeners."""

    all: list[Listener] = field(default_factory=list)

    def on(self, event: Event) -> None:
        """Tell them."""
        for listener in self.all:
            listener.on(event)

    def say(self, text: str) -> None:
        """Tell them a line for people."""
        self.on(Said(text))


@dataclass(frozen=True)
class Search:
    """A search that is about to be run or continued.

    Args:
        config: resolved.
        source: of the data, cut to the configuration's ``train_images``.
        folder: of the run.
        console: where people look; None says nothing.
        notes: lines to say first.
        profiled: the child to trace.
        retry_failed: whether failed children are trained again.
        others: listeners beside those of every search.
        known: what was measured elsewhere with the same seed of children: it is not measured again.
        track: names of trackers (`pnas_fast.tracking.trackers`), which can be used here.
        finishing: whether a report is written, and the best child trained once more where its weights are
            not there; the report command and running the search again do that later.
        stop: who asks this ends the search once its running children are over.
        ray: what is wanted of the Ray cluster that this process is connected to; None trains here.
    """

    config: SearchConfig
    source: DataSource
    folder: Path
    console: Console | None = None
    notes: tuple[str, ...] = ()
    profiled: Profiled | None = None
    retry_failed: bool = False
    others: tuple[Listener, ...] = ()
    known: Mapping[Key, Measurement] = field(default_factory=dict)
    track: tuple[str, ...] = ()
    finishing: bool = True
    stop: Stop = field(default_factory=Stop)
    ray: Wish | None = None

    def run(self) -> SearchResult:
        """Search, or go on searching.

        Raises:
            RunError: the folder holds another run or something else, or is in use.
            PreflightError: not even one child fits the GPU.
            StrategyError, EvaluatorError: the search cannot go on.
            MachineError: the machine is at fault; nothing is lost.
            Ending: it was asked to stop; nothing is lost.
        """
        config, folder = self.config, self.folder
        # A damaged data set is found before anything is written, as is a bad evaluator.
        data = opened(config, self.source)
        deployment = deployment_of(config, data.image_shape, data.classes)
        costs = costs_of(config, deployment)
        aims = make_aims(config, costs)
        spec = make_spec(config, self.source.identity())
        evaluator = make_evaluator(spec)
        saved = saved_config(folder, SearchConfig)
        if saved is not None:
            check_same(folder, saved, config)
            config = replace(config, share=config.share or saved.share)
        with ExitStack() as stack:
            stack.enter_context(locked(folder))
            if saved is None:
                config.save(folder / CONFIG)  # before anything else: it makes the folder a run's
            # A table answers again what a machine without power forgot, and is done before anybody looks.
            trains = not config.evaluator.startswith(TABLE)
            store = stack.enter_context(TrialStore(folder / TRIALS, write=True, durable=trains))
            store.adopt(self.known)
            listeners = Listeners(list(self.others))
            strategy = make_strategy(config, listeners.on, aims)
            if self.console is not None:
                display = choose_display(self.console, config.strategy, strategy.planned, aims)
                stack.enter_context(closing(display))
                listeners.all.append(display)
            notes = (*self.notes, *notes_on(config), *notes_on_aims(config, aims, deployment))
            settled = settle(folder, config, self.source.identity(), store)
            settle_costs(folder, str(deployment), costs, store)
            if data.test_images is not None and (config.test_children or config.finalists):
                settle_tests(folder, test_digest(data), store)
            if trains:
                remember_images(store, data)
            if config.evaluator == "train":
                shown = in_words(data.crop_padding, data.flip, config.cutout)
                notes = (*notes, f"training images: {shown}")
            for line in (heading(config), *notes, *settled):
                listeners.say(line)
            if self.retry_failed and (again := store.forget_failed()):
                listeners.say(f"{again} failed children are trained again")
            known = store.trials()
            best = BestKeeper(folder, store, self._best(known, aims), aims)
            discard_all(folder)
            if self.track:
                tracking = stack.enter_context(self._tracking(listeners.say))
                listeners.all.append(TrackedSearch(tracking, aims))
            unfinished = len(known) < strategy.planned
            executor, share = self._executor(config, unfinished, listeners.say)
            stack.enter_context(closing(executor))
            if share != config.share:
                # From now on it is the run's, wherever and beside whatever its children are trained.
                config = replace(config, share=share)
                settle(folder, config, self.source.identity(), store)
            front = FrontKeeper(folder, aims, split(known)[0])
            listeners.all += [NoteKeeper(store), front, best]
            if self.finishing:
                listeners.all.append(stack.enter_context(ReportWriter(folder, at_once=trains)))
            self.stop.drains(executor.drain)
            executor.start(make_spec(config, self.source.identity()), self.source)
            self._drive(strategy, evaluator, executor, store, listeners)
            best.choose(self._best(store.trials(), aims))
            if config.evaluator == "train" and best.best is not None and best.lacks_weights:
                self._mend_weights(best, executor, listeners)
            discard_all(folder)
            if self.finishing and not is_finished(config, store):
                trials = split(store.trials())[0]
                measured = measure_front(config, deployment, aims, trials, listeners.say)
                listeners.on(Noted(FRONT_LATENCY, measured, kept=bool(measured)))
            mark_finished(config, store)
        return SearchResult.load(folder)

    def _best(self, trials: list[Trial], aims: Aims) -> Trial | None:
        return best_of(trials, self.config.finalists, self.config.final_replicas, aims)

    def _mend_weights(self, keeper: BestKeeper, executor: Executor, listeners: Listeners) -> None:
        """Train the best child once more, whose weights are not there: it comes out the same."""
        best = keeper.best
        assert best is not None
        if not self.finishing:
            (self.folder / BEST).unlink(missing_ok=True)
            return
        listeners.say(f"{BEST} is missing or another child's: the best one is trained again")
        executor.submit(
            Task(best.number, best.proposal, child_seed(self.config.children_seed, best.proposal))
        )
        while not any(isinstance(event, Finished) for event in executor.events()):
            if self.stop.asked:
                raise Ending
        keeper.promote(best)

    def _tracking(self, say: Callable[[str], None]) -> Tracking:
        config = self.config
        identity = config.digest(self.source.identity())
        return Tracking(self.track, self.folder, identity, config.values(), say, KEPT)

    def _is_inline(self) -> bool:
        """A table answers at once; a function of a notebook is to be found in this process alone."""
        return self.config.evaluator.startswith((TABLE, "__main__:"))

    def _executor(
        self, config: SearchConfig, unfinished: bool, say: Callable[[str], None]
    ) -> tuple[Executor, int]:
        """Where children train, and for what share of a GPU kernels are planned; 0 is still open."""
        if self._is_inline():
            return InlineExecutor(self.folder, threads=config.threads), config.share
        data = self.source.open()
        is_here = config.device == CPU or bool(gpus())
        if unfinished and is_here and config.evaluator in ("train", REPTILE):
            warm_kernels(config, data.image_shape, say)
        if self.ray is not None:
            share = config.share if config.device == CPU else config.share or 1
            return ray_executor(config, data, self.folder, self.ray, say), share
        placement, loads = choose_placement(
            config, data, lambda: say("trying how many children a GPU should train at once")
        )
        say(describe_choice(placement, loads) if loads else str(placement))
        executor = LocalExecutor(
            placement.devices, self.folder, config.time_limit, config.threads, lanes=placement.lanes
        )
        return executor, config.share if config.device == CPU else placement.share

    def _drive(
        self,
        strategy: Strategy,
        evaluator: Evaluator,
        executor: Executor,
        store: TrialStore,
        listeners: Listeners,
    ) -> None:
        config, traced = self.config, list[int]()

        def is_traced(number: int, proposal: Proposal) -> bool:
            found = self.profiled is not None and self.profiled.is_it(number, proposal.cell)
            traced.extend([number] * found)
            return found

        driver = Driver(
            strategy,
            config.strategy,
            evaluator,
            executor,
            store,
            config.children_seed,
            listeners.on,
            is_traced,
            self.stop,
        )
        driver.run()
        if self.profiled is not None:
            where = (
                f"{trace_file(self.folder, traced[0])}, for https://ui.perfetto.dev"
                if traced
                else ("no child that was trained now is that, nothing was traced")
            )
            listeners.say(f"--profile {self.profiled.text}: {where}")


def heading(config: SearchConfig) -> str:
    """The first line of a search: what runs where."""
    size = f"B {config.blocks}" + (f", K {config.beam}" if config.strategy == "progressive" else "")
    trained = "meta-iterations" if config.evaluator == REPTILE else "epochs"
    return (
        f"pnas_fast {VERSION} · {config.strategy} · {config.data} · {size}, N {config.repeats}, "
        f"F {config.filters}, {config.child_budget} {trained} · {config.device}, {config.backend} kernels"
    )
