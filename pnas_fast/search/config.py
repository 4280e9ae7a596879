"""The configuration of a search: one flat, frozen, checked value, and its two presets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

import torch

from pnas_fast.candidates import one_block_cells
from pnas_fast.cli.options import ConfigError, option
from pnas_fast.engine.few_shot import OPTIONS as FEW_SHOT
from pnas_fast.engine.few_shot import REPTILE, FewShotSettings, check_evaluator
from pnas_fast.objectives.deployment import normal
from pnas_fast.objectives.limits import ACCURACY, COSTS, parse_limits, parse_objectives
from pnas_fast.runs.config import RunConfig
from pnas_fast.search.device_file import content_of, settled
from pnas_fast.search.strategy_options import OPTIONS_OF, STRATEGIES, check_belongs, in_words
from pnas_fast.space import MAX_BLOCKS, OPERATIONS, CellError, check_operations
from pnas_fast.strategies.controller import RATES
from pnas_fast.strategies.policy_gradient import ALGORITHMS
from pnas_fast.strategies.targets import LEARN
from pnas_fast.surrogate import PREDICTORS, REFITS

PRESETS = ("quick", "paper")

ACCURACY_ONLY = ("controller", "local", "bananas")
"""Strategies that choose by accuracy alone, whatever cells cost."""

AIMS = ("objectives", "limit", "deploy", "device_file", "explore")
"""Options of what cells are for, which the first configurations did not have."""

TABLE = "table:"
"""How an evaluator begins that looks measurements up."""

RAISABLE = ("blocks", "beam", "epochs", "budget", "cells", "replicas", "finalists", "final_replicas")
"""What may become more when a run is continued: its measurements that still hold are used again."""


@dataclass(frozen=True, kw_only=True)
class SearchConfig(FewShotSettings, RunConfig):
    """What a search does. Without arguments it is the ``quick`` preset.

    Fields of `TrainingSettings` say how each child is built and trained, those of `FewShotSettings` how it is
    where it learns from few images; every field is also an option of ``python -m pnas_fast.search``.

    Raises:
        ConfigError: a value outside its limits, or one that belongs to another strategy.
    """

    KIND: ClassVar[str] = "search"
    SINCE: ClassVar[tuple[str, ...]] = (*RunConfig.SINCE, *FEW_SHOT, *AIMS)

    strategy: str = option("progressive", "which cells to look at", choices=STRATEGIES)
    blocks: int = option(
        3, "B: grow cells up to so many blocks (progressive), or draw cells of so many", minimum=1,
        maximum=MAX_BLOCKS,
    )  # fmt: skip
    operations: tuple[str, ...] = option(OPERATIONS, "operations cells are made of, joined by commas",
        shown="all")  # fmt: skip
    beam: int = option(
        24, "K: children trained at each level after the first (progressive)", minimum=1, maximum=1_000_000
    )
    first_level: int = option(
        48,
        "one-block cells to train, drawn so that each operation on each input comes as often; 0 is all of "
        "them (progressive)",
        minimum=0,
        maximum=1000,
    )
    predictor: str = option(
        "mlp",
        "surrogate: an ensemble of five mlp, lstm, or paths, which are ridge regressions on sequences of "
        "operations (progressive, bananas)",
        choices=PREDICTORS,
    )
    learn: str = option(
        "accuracy",
        "what the surrogate learns of children: validation accuracy, or validation loss, which tells those "
        "of equal accuracy apart (progressive)",
        choices=LEARN,
    )
    refit: str = option(
        "finetune", "at each level, finetune the surrogate or fit it from scratch (progressive)",
        choices=REFITS,
    )  # fmt: skip
    kappa: float = option(
        0.0,
        "cells are chosen by mean + kappa times standard deviation of the surrogate's members; 0 is the "
        "paper's choice, more explores (progressive)",
        minimum=0,
        maximum=1e6,
    )
    budget: int = option(
        0,
        "children to train; 0 is as many as progressive search would by default (random, evolution, "
        "controller, local, bananas)",
        minimum=0,
        maximum=10_000_000,
    )
    lag: int = option(
        16,
        "a proposal is made without the results of so many before it, whatever the number of workers: at "
        "most lag + 1 children train at once (evolution, controller, local; lag + 10: bananas)",
        minimum=0,
        maximum=100_000,
    )
    population: int = option(
        0, "cells alive; 0 is by the budget, 20 to 100 (evolution)", minimum=0, maximum=1_000_000
    )
    sample: int = option(
        0, "cells of which the best becomes a parent; 0 is a quarter of those alive (evolution)", minimum=0,
        maximum=1_000_000,
    )  # fmt: skip
    retrain: bool = option(False, "train a cell that comes again with another seed (evolution)")
    policy: str = option(
        "lstm",
        "what cells are drawn from: an lstm, or a table of a free logit for each value of each choice "
        "(controller)",
        choices=tuple(RATES),
    )
    algorithm: str = option("ppo", "how the policy learns (controller)", choices=tuple(ALGORITHMS))
    controller_rate: float = option(
        0.0, "learning rate of the policy; 0 is 0.0008 for lstm and 0.05 for table (controller)", minimum=0,
        maximum=10,
    )  # fmt: skip
    batch_of_proposals: int = option(
        20, "proposals that the policy learns from at a time (controller)", minimum=1, maximum=100_000
    )
    candidates: int = option(
        200, "mutations that the surrogate scores for each round of ten (bananas)", minimum=10,
        maximum=1_000_000,
    )  # fmt: skip
    cells: int = option(
        0, "cells to train, of the largest ones a random sample; 0 is all there are (exhaustive)", minimum=0,
        maximum=10_000_000,
    )  # fmt: skip
    replicas: int = option(
        1, "trainings of each cell, with other seeds (exhaustive)", minimum=1, maximum=1000
    )
    finalists: int = option(
        3,
        "cells trained again with fresh seeds when the search is over, of which the best mean is chosen and "
        "its test accuracy reported; 0 takes the best single training's",
        minimum=0,
        maximum=1000,
    )
    final_replicas: int = option(3, "final trainings of each finalist", minimum=1, maximum=1000)
    final_epochs: int = option(
        0, "epochs of a final training; 0 is as many as the search's", minimum=0, maximum=1_000_000
    )
    test_children: bool = option(
        False,
        "measure each child on the test images too: test_accuracy and test_loss are recorded, and nothing is "
        "chosen by them",
    )
    evaluator: str = option(
        "train",
        "how good a cell is: train a child, reptile (a child learns from few images), table:FILE of recorded "
        "measurements, or your own package.module:function",
    )
    draw_replicas: bool = option(
        False, "answer with one of a table's replicas of the cell, drawn by the child's seed (table:FILE)"
    )
    seed: int = option(0, "of children, surrogate and choices", minimum=0, maximum=2**31 - 1)
    evaluation_seed: int = option(
        -1,
        "of children alone; -1 is as --seed. With the same one, searches of other seeds train a cell alike",
        minimum=-1,
        maximum=2**31 - 1,
    )
    objectives: tuple[str, ...] = option(
        (ACCURACY,),
        f"what cells are to be good at: accuracy, and any of {' '.join(COSTS)}, which are to be small, "
        "joined by commas (controller, local, bananas: accuracy alone)",
    )
    limit: tuple[str, ...] = option(
        (),
        f"what the network to be deployed may cost at most, such as parameters<=3e6, of "
        f"{' '.join(COSTS.values())}; may be given several times",
        repeated=True,
        shown="none",
    )
    deploy: str = option(
        "",
        "the network that costs are of, as repeats=6,filters=44,image=32,batch=1, any of which may be left "
        "out; by default the child",
    )
    device_file: str = option(
        "",
        "what python -m pnas_fast.latency measured of the network to be deployed: latency_ms is known by it",
    )
    explore: float = option(
        0.0,
        "share of a level's cells that are chosen because the surrogate's members disagree about them "
        "(progressive)",
        minimum=0,
        maximum=1,
    )
    workers: int = option(
        0, "children side by side on a CPU; 0 is one a core", minimum=0, maximum=1024, identity=False
    )
    children_per_gpu: int = option(
        0,
        "children side by side on each GPU, in one process where they are trained; 0 tries how many pay",
        minimum=0,
        maximum=256,
        identity=False,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        try:
            object.__setattr__(self, "operations", check_operations(self.operations))
        except CellError as error:
            raise ConfigError(f"operations: {error}") from error
        self._check_aims()
        check_belongs(self.strategy, [n for n in OPTIONS_OF if getattr(self, n) != _default(n)])
        changed = [name for name in (*FEW_SHOT, "test_children") if getattr(self, name) != _default(name)]
        check_evaluator(self.evaluator, changed)
        if self.draw_replicas and not self.evaluator.startswith(TABLE):
            raise ConfigError(
                f"--draw-replicas with --evaluator {self.evaluator}, allowed is --evaluator {TABLE}FILE"
            )

    def _check_aims(self) -> None:
        """Objectives, limits and deployment as everybody writes them."""
        try:
            objectives, limits = parse_objectives(self.objectives), parse_limits(self.limit)
            deploy = normal(self.deploy)
        except ValueError as error:
            raise ConfigError(str(error)) from error
        if len(objectives) > 1 and self.strategy in ACCURACY_ONLY:
            raise ConfigError(
                f"objectives are {','.join(objectives)}: {self.strategy} chooses by {ACCURACY} alone, and "
                f"keeps --limit; allowed are {in_words([n for n in STRATEGIES if n not in ACCURACY_ONLY])}"
            )
        object.__setattr__(self, "objectives", objectives)
        object.__setattr__(self, "limit", tuple(map(str, limits)))
        object.__setattr__(self, "deploy", deploy)

    @property
    def children_seed(self) -> int:
        """What children's seeds are made of."""
        return self.seed if self.evaluation_seed < 0 else self.evaluation_seed

    def resolved(self, elsewhere: bool = False) -> SearchConfig:
        """This configuration with ``device`` and ``backend`` settled for this machine.

        Args:
            elsewhere: whether children train on other machines, which may have GPUs where this one has none.

        Raises:
            ConfigError: a device this machine lacks, a backend that does not serve it, or a number of
                children side by side that is of another device.
        """
        config = self._on("cuda") if elsewhere and self.device == "cuda" else super().resolved()
        if config.device == "cuda" and self.workers:
            raise ConfigError(
                f"workers is {self.workers} on cuda, allowed is 0: --children-per-gpu counts there"
            )
        if config.device == "cpu" and self.children_per_gpu:
            raise ConfigError(
                f"children_per_gpu is {self.children_per_gpu} on cpu, allowed is 0: see --workers"
            )
        if self.strategy in OPTIONS_OF["budget"] and not self.budget:
            config = replace(config, budget=progressive_children(config.for_strategy("progressive")))
        if self.device_file:
            config = replace(config, device_file=settled(self.device_file))
        # A table has no fresh trainings.
        return replace(config, finalists=0) if self.evaluator.startswith("table:") else config

    @property
    def child_budget(self) -> int:
        """What a child is trained for: epochs, or meta-iterations where it learns from few images."""
        return self.meta_iterations if self.evaluator == REPTILE else self.epochs

    def identity(self) -> dict[str, Any]:
        """As `RunConfig.identity`; a device's file is known by its content, wherever it lies."""
        found = super().identity()
        return found | {"device_file": content_of(found["device_file"])}

    def difference(self, other: SearchConfig) -> list[str]:
        """What another configuration changes about the run but for what may be raised."""
        raised = [name for name in RAISABLE if getattr(other, name) > getattr(self, name)]
        return super().difference(replace(other, **{name: getattr(self, name) for name in raised}))

    def for_strategy(self, strategy: str) -> SearchConfig:
        """This configuration with another strategy, options of other strategies being their defaults."""
        foreign = {name: _default(name) for name, own in OPTIONS_OF.items() if strategy not in own}
        return replace(self, strategy=strategy, **foreign)

    @classmethod
    def from_values(cls, values: Mapping[str, Any]) -> Self:
        """The configuration of `values()`."""
        # Runs that do not say trained all, with kernels for a whole GPU.
        lists = {name: tuple(value) for name, value in values.items() if isinstance(value, list)}
        return cls(
            **{"first_level": 0, "share": 1, **values, **lists, "operations": tuple(values["operations"])}
        )


def first_level(config: SearchConfig) -> int:
    """How many one-block cells progressive search trains."""
    every = len(one_block_cells(config.operations))
    return min(config.first_level or every, every)


def progressive_children(config: SearchConfig) -> int:
    """How many children progressive search trains, at most."""
    return first_level(config) + (config.blocks - 1) * config.beam


def _default(name: str) -> Any:
    return SearchConfig.__dataclass_fields__[name].default


def device_note(asked: SearchConfig, resolved: SearchConfig, elsewhere: bool = False) -> str | None:
    """What to say where the device was left open and is the slow one; see `SearchConfig.resolved`."""
    if asked.device == "auto" and resolved.device == "cpu":
        hint = "; --device cuda trains on those of other hosts" if elsewhere else ""
        return f"device auto: torch sees no CUDA GPU here, children train on the CPU{hint}"
    return None


def quick() -> SearchConfig:
    """Every stage in minutes on two CPU cores: B = 3 on the bundled digits."""
    return SearchConfig()


def paper() -> SearchConfig:
    """The paper's search: K = 256, B = 5, N = 2, F = 24, 20 epochs on CIFAR-10.

    Batch size and optimiser are not known for certain; these follow NASNet's released CIFAR settings
    but for the batch, which is larger to keep a GPU busy.
    """
    return SearchConfig(
        data="cifar10:data/cifar10",
        blocks=5,
        first_level=0,
        beam=256,
        repeats=2,
        filters=24,
        epochs=20,
        batch=128,
        learning_rate=0.01,
        time_limit=3600.0,
    )


def preset(name: str) -> SearchConfig:
    """The preset of that name, one of `PRESETS`."""
    return {"quick": quick, "paper": paper}[name]()


def default_preset() -> str:
    """``paper`` where torch sees a GPU, else ``quick``."""
    return "paper" if torch.cuda.is_available() else "quick"
