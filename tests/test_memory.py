"""Peak memory of activations: of a graph, and by the rule on cells' codes."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from onnx import TensorProto, helper

from cells import PNASNET5, cells
from pnas_fast.candidates import expand, one_block_cells
from pnas_fast.export.errors import ExportError
from pnas_fast.export.memory import peak_activations
from pnas_fast.latency.folder import model_of
from pnas_fast.objectives.deployment import Deployment
from pnas_fast.objectives.memory import MIB, Memory, canonical
from pnas_fast.protocols import Measurement, Proposal, Trial
from pnas_fast.space import MAX_BLOCKS, OPERATIONS, Cell
from pnas_fast.space.neighbours import draw

LAYOUTS = [
    Deployment(1, 4, (3, 7, 9), 10),
    Deployment(2, 5, (1, 8, 8), 3),
    Deployment(3, 16, (3, 6, 6), 10, batch=2),
    Deployment(1, 32, (3, 16, 16), 10),
]


def of(cell: Cell, deployment: Deployment) -> float:
    """Bytes by the rule."""
    return float(MIB * Memory(deployment).before(cell.codes[np.newaxis])[0])


@pytest.mark.parametrize("seed", range(24))
def test_the_rule_gives_what_the_exported_graph_does(seed: int) -> None:
    deployment, blocks = LAYOUTS[seed % len(LAYOUTS)], 3 + seed // len(LAYOUTS) % 3
    cell = draw(blocks, OPERATIONS, np.random.default_rng(seed)).canonical()
    assert of(cell, deployment) == peak_activations(model_of(cell, deployment)), cell


@pytest.mark.parametrize("operation", OPERATIONS)
def test_every_operation_on_every_input(operation: str) -> None:
    """Where concatenations need little, sides decide."""
    deployment = Deployment(1, 4, (3, 6, 6), 10)
    for source in (0, 1):
        for other in ("identity", "sep3x3", "max_pool3x3"):
            cell = Cell.parse(f"{source}:{operation}+{source}:{other}").canonical()
            assert of(cell, deployment) == peak_activations(model_of(cell, deployment)), cell
    cell = Cell.parse(f"0:sep3x3+1:identity,2:{operation}+2:identity").canonical()
    assert of(cell, deployment) == peak_activations(model_of(cell, deployment)), cell


@given(cells())
@settings(max_examples=50, deadline=None)
def test_the_order_of_blocks_and_sides_has_no_say(cell: Cell) -> None:
    codes = cell.codes
    assert (canonical(codes[np.newaxis])[0] == cell.canonical().codes).all()
    assert of(Cell.from_codes(codes[:, [2, 3, 0, 1]]), LAYOUTS[0]) == of(cell, LAYOUTS[0])


def test_many_cells_at_once_are_as_each_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pnas_fast.objectives.memory._BATCH", 50)
    memory, codes = Memory(LAYOUTS[0]), one_block_cells()
    found = memory.before(codes)
    assert found.shape == (136,)
    assert found.dtype == np.float64
    assert found.tolist() == [memory.before(code[np.newaxis])[0] for code in codes]
    assert len(set(found.tolist())) == 3


@pytest.mark.parametrize("deployment", [*LAYOUTS, Deployment(6, 44, (3, 32, 32), 10)])
def test_it_grows_with_blocks_up_to_a_bound(deployment: Deployment) -> None:
    memory, rng = Memory(deployment), np.random.default_rng(0)
    assert memory.grows
    parents = one_block_cells()
    for blocks in range(1, MAX_BLOCKS):
        candidates = expand(parents)
        costs = memory.before(candidates.codes)
        assert (costs >= memory.before(parents)[candidates.parent]).all()
        assert costs.max() <= memory.most(blocks + 1, OPERATIONS) <= 2 * costs.max()
        parents = candidates.codes[rng.choice(len(costs), 5, replace=False)]
    assert memory.most(5, ("identity",)) < memory.most(5, OPERATIONS)


def test_the_batch_multiplies_it() -> None:
    cell = Cell.parse(PNASNET5)
    one, four = (of(cell, Deployment(2, 24, (3, 16, 16), 10, batch)) for batch in (1, 4))
    assert four == 4 * one


def test_a_failed_trial_has_none() -> None:
    cell = Cell.parse(PNASNET5)
    memory, proposal = Memory(LAYOUTS[0]), Proposal(cell, 1)
    assert memory.of(Trial(0, proposal, Measurement("done", {}))) == of(cell, LAYOUTS[0]) / MIB
    assert np.isnan(memory.of(Trial(0, proposal, Measurement("failed", {}, "error"))))


def model(nodes: list[onnx.NodeProto], batch: int | str = 1) -> onnx.ModelProto:
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [batch, 10]) for name in ("x", "y")]
    return helper.make_model(helper.make_graph(nodes, "made by hand", ends[:1], ends[1:]))


@pytest.mark.parametrize(
    ("nodes", "tensors"),
    [
        ([("Relu", "x", "y")], 1),  # in place
        ([("Sigmoid", "x", "y")], 2),
        ([("Relu", "x", "a"), ("Sigmoid", "a", "b"), ("Add", "a b", "y")], 2),
        ([("Sigmoid", "x", "a"), ("Sigmoid", "x", "b"), ("Add", "a b", "y")], 3),
        ([("Sigmoid", "x", "a"), ("Relu", "a", "b"), ("Sigmoid", "a", "c"), ("Add", "b c", "y")], 3),
        ([("Sigmoid", "x", "unused"), ("Relu", "x", "y")], 2),
        ([("Add", "x x", "y")], 1),
    ],
)
def test_a_graph_by_hand(nodes: list[tuple[str, str, str]], tensors: int) -> None:
    made = [helper.make_node(kind, inputs.split(" "), [output]) for kind, inputs, output in nodes]
    assert peak_activations(model(made)) == tensors * 4 * 10


def test_a_graph_for_any_batch_is_refused() -> None:
    with pytest.raises(ExportError, match="has no fixed shape"):
        peak_activations(model([helper.make_node("Relu", ["x"], ["y"])], "batch"))


PLANNED = """
import sys
import numpy as np
import onnxruntime as ort

ort.set_default_logger_severity(0)
# Whatever is requested extends the arena, and is logged: of the second run it is the plan of the first.
settings = {"arena_extend_strategy": 1, "initial_chunk_size_bytes": 256, "max_dead_bytes_per_chunk": 256}
kind = ort.OrtMemoryInfo("Cpu", ort.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, ort.OrtMemType.DEFAULT)
ort.create_and_register_allocator(kind, ort.OrtArenaCfg(settings))
options = ort.SessionOptions()
options.intra_op_num_threads = 1
options.add_session_config_entry("session.use_env_allocators", "1")
session = ort.InferenceSession(sys.argv[1], options, providers=["CPUExecutionProvider"])
images = session.get_inputs()[0]
for _ in range(2):
    print("RUN", file=sys.stderr, flush=True)
    session.run(None, {images.name: np.zeros(images.shape, np.float32)})
"""


@pytest.mark.slow
def test_onnx_runtime_plans_about_as_much(tmp_path: Path) -> None:
    """It has an order of its own and packs tensors side by side; docs/latency.md says how far it agrees."""
    deployment = Deployment(2, 32, (3, 32, 32), 10)
    ours, planned = [], []
    for blocks in range(1, 6):
        cell = draw(blocks, OPERATIONS, np.random.default_rng(blocks - 1)).canonical()
        onnx.save(model_of(cell, deployment), tmp_path / "model.onnx")
        done = subprocess.run(
            [sys.executable, "-c", PLANNED, str(tmp_path / "model.onnx")],
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        last = done.stderr.split("RUN")[2]
        planned.append(max(int(size) for size in re.findall(r"\(requested\) num_bytes: (\d+)", last)))
        ours.append(of(cell, deployment))
    ratios = np.array(planned) / ours
    assert ratios.min() > 0.5
    assert ratios.max() < 2
