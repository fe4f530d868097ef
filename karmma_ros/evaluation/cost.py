"""
What a preset costs: operations, parameters and memory, computed from shapes alone.

Networks are built on the meta device: nothing is allocated and nothing multiplied. Operations
are counted as the paper does: two for each multiply-accumulate of a matrix product or a
convolution, one clip, nothing else.

Memory at inference is measured: run as a program, this module builds a preset with the encoders
of one subset, recognises one clip and prints by how many bytes the process grew at its largest.
What Python and the libraries take before is not counted; the memory is the CPU's, in fp32.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
import resource
import subprocess
import sys
from typing import Any
import weakref

from karmma_ros.clip import ClipSpec
from karmma_ros.data.synthetic_kitchen.episode import clip_spec as kitchen_clip
from karmma_ros.data.synthetic_kitchen.vocabulary import vocabulary as kitchen_vocabulary
from karmma_ros.errors import InvalidSettingError, KarmmaError
from karmma_ros.modality import Modality, parse_subset, subset_name, subsets
from karmma_ros.model.builder import build
from karmma_ros.model.config import ModelConfig
from karmma_ros.model.fusion import ConcatenatedHeads
from karmma_ros.model.karmma import Karmma
from karmma_ros.model.presets import only, preset, task
from karmma_ros.model.streaming import chunks_of, EagerParts, newest
from karmma_ros.model.tokens import REDUCE
from karmma_ros.prediction import Vocabulary
import numpy as np
import torch
from torch import Tensor
from torch.nn.attention import sdpa_kernel, SDPBackend
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode


@dataclass(frozen=True)
class Cost:
    """The cost of a network."""

    gflops: Mapping[str, float]
    """Subset → billions of operations a clip, absent modalities left out, as the paper counts;
    filled in, where the heads take the tokens of all modalities."""
    gflops_filled: Mapping[str, float]
    """The same with absent modalities filled by learned tokens; empty where there are none, or
    where nothing can be left out."""
    gflops_live: Mapping[str, float]
    """The same of a streaming network for a live prediction after `NEW_FRAMES` frames, or a chunk,
    where what was encoded before is used again; empty for others."""
    parameters: int
    trainable: int


NEW_FRAMES = 2
"""Frames from one live prediction to the next: 8 predictions a second at the paper's 16 frames."""


def setting(name: str) -> tuple[ClipSpec, Vocabulary]:
    """Return the clips and classes that a preset's figures are for; the kitchen's if none are."""
    own = task(name)
    if own is None:
        return kitchen_clip(), kitchen_vocabulary()
    return own.clip, Vocabulary(
        {head: tuple(map(str, range(size))) for head, size in own.classes.items()})


def cost_of(name: str, config: ModelConfig | None = None) -> Cost:
    """
    Compute the cost of a preset.

    :param config: an architecture in its place, for the preset's task.
    :raises InvalidSettingError: when there is no preset of that name.

    >>> from karmma_ros.evaluation.cost import cost_of
    >>> cost = cost_of('tiny')
    >>> sorted(cost.gflops) == sorted(cost_of('tiny').gflops), cost.gflops['A'] < cost.gflops['V']
    (True, True)
    """
    return _cost(*_shapes_of(name, config or preset(name)))


def cost_of_model(config: ModelConfig, spec: ClipSpec, vocabulary: Vocabulary) -> Cost:
    """Compute the cost of a model, such as that of a model directory."""
    with torch.device('meta'):
        return _cost(build(config, spec, vocabulary).eval(), spec)


def _cost(network: Karmma, spec: ClipSpec) -> Cost:
    tokens, encoding = _count_each(_inputs(network, spec), network.encode)
    chosen = subsets(network.modalities)

    def total(subset: Sequence[Modality]) -> float:
        fusing, _ = count_operations(lambda: network.fuse({m: tokens[m] for m in subset}))
        return (fusing + sum(encoding[m] for m in subset)) / 1e9

    filled = {subset_name(s): total(s) for s in chosen} if network.fill_missing else {}
    needs_all = isinstance(network.heads, ConcatenatedHeads)
    live = {subset_name(s): _live(network, s) / 1e9
            for s in chosen} if chunks_of(network) else {}
    network.fill_missing = needs_all
    return Cost(
        {subset_name(s): total(s) for s in chosen}, {} if needs_all else filled, live,
        sum(p.numel() for p in network.parameters()),
        sum(p.numel() for p in network.parameters() if p.requires_grad))


def _live(network: Karmma, subset: Sequence[Modality]) -> int:
    """Count the operations of a live prediction."""
    clip = {m: np.zeros((1, *network.input_shapes[m]), np.float32) for m in subset}
    tokens = newest(EagerParts(network, 'meta'), clip, NEW_FRAMES)
    return count_operations(lambda: network.fuse(tokens()))[0]


def gflops_by_cap(name: str, caps: Sequence[int | None]) -> dict[int | None, float]:
    """
    Return the cost with all sensors for each cap on the tokens of a modality (Table V).

    :param caps: None leaves the tokens as they are.
    :raises InvalidSettingError: for an unknown preset, one without a cap, or a cap below one.
    """
    config = preset(name)
    if config.fusion == 'logit_mean' or config.reduction == 'none':
        raise InvalidSettingError('preset', name, 'one that reduces its tokens before fusion')
    network, spec = _shapes_of(name, config)
    features, encoding = _count_each(
        _inputs(network, spec), lambda m, x: network.encoders[m.value](x))
    costs = {}
    for cap in caps:
        network.reduce = None if cap is None else REDUCE[config.reduction]
        network.token_cap = cap or 0
        tokens, embedding = _count_each(features, network.embed)
        fusing, _ = count_operations(lambda: network.fuse(tokens))
        costs[cap] = (fusing + sum(encoding.values()) + sum(embedding.values())) / 1e9
    return costs


def fusion_training_bytes(
    name: str, caps: Sequence[int | None], batch: int = 32
) -> dict[int | None, int]:
    """
    Return what the fusion block keeps for its backward pass, for each cap on the tokens (Table V).

    Intermediate results of a batch in fp32 with all sensors, attention weights written out.

    :raises InvalidSettingError: as `gflops_by_cap`.
    """
    network, spec = _shapes_of(name, preset(name))
    network.train()
    features = {
        m: network.encoders[m.value](torch.empty(batch, *spec.input_shape(m), device='meta'))
        for m in network.modalities}
    kept = {}
    for cap in caps:
        network.reduce = None if cap is None else REDUCE[preset(name).reduction]
        network.token_cap = cap or 0
        tokens = {m: network.embed(m, x.detach()) for m, x in features.items()}
        kept[cap] = _saved_bytes(lambda: network.fusion(tokens), network.fusion.parameters())
    return kept


def _saved_bytes(compute: Callable[[], Any], weights: Iterable[Tensor]) -> int:
    """Add up the storages that autograd saves, without the weights."""
    sizes: dict[int, torch.UntypedStorage] = {}

    def save(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        sizes[storage._cdata] = storage
        return tensor

    with _plain_attention(), torch.autograd.graph.saved_tensors_hooks(save, lambda x: x):
        result = compute()
    own = {weight.untyped_storage()._cdata for weight in weights}
    del result
    return sum(storage.nbytes() for key, storage in sizes.items() if key not in own)


def tensor_bytes(name: str, modalities: Sequence[Modality]) -> int:
    """
    Return the most bytes of tensors that live at once while one clip is recognised.

    Weights, inputs and intermediate results in fp32, with only the encoders of `modalities`
    loaded. An allocator, a library's workspaces and Python itself come on top.
    """
    network, spec = _shapes_of(name, replace(only(preset(name), modalities), missing='omit'))
    inputs = _inputs(network, spec)
    live = _LiveBytes()
    for tensor in (*network.parameters(), *network.buffers(), *inputs.values()):
        live.add(tensor)
    with torch.inference_mode(), live:
        network.fuse({m: network.encode(m, x) for m, x in inputs.items()})
    return live.peak


def count_operations(compute: Callable[[], Any]) -> tuple[int, Any]:
    """
    Count the operations of matrix products and convolutions in a computation.

    :returns: two for each multiply-accumulate, and the result.
    """
    counter = FlopCounterMode(display=False)
    with torch.inference_mode(), _plain_attention(), counter:
        result = compute()
    return counter.get_total_flops(), result


@contextmanager
def _plain_attention() -> Iterator[None]:
    """Take fused attention apart into its products: the counter sees only those."""
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)


def _shapes_of(name: str, config: ModelConfig) -> tuple[Karmma, ClipSpec]:
    spec, vocabulary = setting(name)
    with torch.device('meta'):
        return build(config, spec, vocabulary).eval(), spec


def _inputs(network: Karmma, spec: ClipSpec) -> dict[Modality, Tensor]:
    return {m: torch.empty(1, *spec.input_shape(m), device='meta') for m in network.modalities}


def _count_each(
    given: Mapping[Modality, Tensor], compute: Callable[[Modality, Tensor], Tensor]
) -> tuple[dict[Modality, Tensor], dict[Modality, int]]:
    results, operations = {}, {}
    for modality, x in given.items():
        operations[modality], results[modality] = count_operations(lambda: compute(modality, x))
    return results, operations


class _LiveBytes(TorchDispatchMode):
    """Follow every storage from its first appearance to its end."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._known: dict[int, weakref.ref[torch.UntypedStorage]] = {}

    def add(self, tensor: Tensor) -> None:
        """Count a tensor's storage, once, until it is freed."""
        storage = tensor.untyped_storage()
        key, size = storage._cdata, storage.nbytes()
        if key in self._known:
            return

        def gone(_: object) -> None:
            self.now -= size
            del self._known[key]

        self._known[key] = weakref.ref(storage, gone)
        self.now += size
        self.peak = max(self.peak, self.now)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(out):
            if isinstance(leaf, Tensor):
                self.add(leaf)
        return out


_KILO = 1024


def resident_bytes(name: str, modalities: Sequence[Modality]) -> int:
    """
    Measure by how much a new process grows while it builds a preset and recognises one clip.

    :raises KarmmaError: when the process fails, with its last line.
    """
    done = subprocess.run(
        [sys.executable, '-m', __name__, name, subset_name(modalities)],
        capture_output=True, text=True, check=False)
    if done.returncode:
        last = (done.stderr.strip() or f'exit status {done.returncode}').splitlines()[-1]
        raise KarmmaError(f'measuring {name} with {subset_name(modalities)} failed: {last}')
    return int(done.stdout)


def _growth(name: str, modalities: Sequence[Modality]) -> int:
    spec, vocabulary = setting(name)
    config = replace(only(preset(name), modalities), missing='omit')
    with torch.device('meta'):  # what it imports is no part of the network
        build(config, spec, vocabulary)
    before = _resident()
    network = build(config, spec, vocabulary).eval()
    inputs = {m: torch.zeros(1, *spec.input_shape(m)) for m in network.modalities}
    with torch.inference_mode():
        network(inputs, torch.ones(1, len(inputs), dtype=torch.bool))
    return _peak() - before


def _resident() -> int:
    return _status('VmRSS')


def _peak() -> int:
    return _status('VmHWM')


def _status(field: str) -> int:
    """
    Return a field of the process' own status, bytes.

    What the system calls maxrss counts the process that started this one, too; it stands in
    only where there is no such file.
    """
    status = Path('/proc/self/status')
    if status.exists():
        for line in status.read_text().splitlines():
            if line.startswith(f'{field}:'):
                return int(line.split()[1]) * _KILO
    largest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return largest if sys.platform == 'darwin' else largest * _KILO


if __name__ == '__main__':
    print(_growth(sys.argv[1], parse_subset(sys.argv[2])))
