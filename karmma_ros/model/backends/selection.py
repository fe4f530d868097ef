"""
The choice of a backend: the requested one, or the fastest that agrees with eager.

Candidates are tried on one check clip. Nothing is converted, or compiled for minutes, meanwhile:
`auto` considers the exports of the model directory, and CUDA graphs on a GPU.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
import math
import statistics
import time
from typing import NamedTuple

from karmma_ros.errors import BundleError, first_line, InvalidSettingError, KarmmaError
from karmma_ros.modality import Modality
from karmma_ros.model.backends.agreement import (
    check_clip,
    difference,
    predict_subsets,
    Subset,
    TOLERANCE,
)
from karmma_ros.model.backends.exports import Export, find_exports, FORMATS, read_eager_logits
from karmma_ros.model.backends.interface import (
    Backend,
    BF16,
    COMPILED,
    EAGER,
    FP32,
    Input,
    Logits,
    ONNXRUNTIME,
    OPENVINO,
)
from karmma_ros.model.backends.onnx_runtime import load_onnx
from karmma_ros.model.backends.openvino_runtime import load_openvino
from karmma_ros.model.backends.pytorch import CompiledCPU, CompiledCUDA, Eager
from karmma_ros.model.bundle import Bundle, load_bundle
from karmma_ros.model.streaming import chunks_of, newest
import numpy as np
import torch

AUTO = 'auto'
WANTED = (AUTO, EAGER, COMPILED, ONNXRUNTIME, OPENVINO)
"""Values of the setting `backend`."""
LARGE = 10_000_000
"""Weights from which on eager is not run for comparison, if an export has its logits."""
_ENOUGH_S = 0.25
"""A candidate is timed repeatedly for this long."""

Make = Callable[[], Backend]


class BackendChoice(NamedTuple):
    """A backend, and why it was chosen."""

    backend: Backend
    reason: str


@dataclass(frozen=True)
class Trial:
    """The result of a candidate on the check clip."""

    label: str
    backend: Backend | None = None
    seconds: float = float('inf')
    """For one inference from all modalities, the median: of a stream, on its newest frames."""
    difference: float = float('inf')
    error: KarmmaError | None = None

    @property
    def agrees(self) -> bool:
        """Whether it can be chosen."""
        return self.backend is not None and self.difference <= TOLERANCE[self.backend.precision]

    def __str__(self) -> str:
        if self.backend is None:
            return f'{self.label} failed: {self.error}'
        if self.label == EAGER:
            timed = math.isfinite(self.seconds)
            return f'{EAGER} {1e3 * self.seconds:.1f} ms' if timed else f'{EAGER} not timed'
        allowed = TOLERANCE[self.backend.precision]
        verdict = '' if self.agrees else ': not used'
        return (f'{self.label} {1e3 * self.seconds:.1f} ms, differs by {self.difference:.2%} '
                f'({allowed:.1%} allowed){verdict}')


def choose(
    bundle: Bundle, device: str = 'cpu', wanted: str = AUTO, *, keep_weights: bool = True
) -> BackendChoice:
    """
    Return a backend that runs a model, after at least one inference.

    :param keep_weights: False lets the bundle's network lose its weights where a runtime has its
        own, a large one those of its encoders before any runtime begins to read.
    :raises InvalidSettingError: for a backend that does not exist, is not installed, or does
        not run on the device.
    :raises BundleError: for one that is not exported, or disagrees with eager.
    """
    if wanted not in WANTED:
        raise InvalidSettingError('backend', wanted, ', '.join(WANTED))
    eager = Eager(bundle.network, device)
    if wanted == EAGER:
        return BackendChoice(eager, 'eager: requested')
    candidates, problems = _candidates(bundle, device, wanted)
    if wanted != AUTO and not candidates:
        raise _none(bundle, wanted, problems)
    if not candidates:
        return BackendChoice(eager, '; '.join(
            ['eager: nothing faster is exported (karmma export MODEL --to openvino)', *problems]))
    known = None if COMPILED in candidates else known_logits(bundle)
    if known is not None and not keep_weights:
        bundle.network.encoders.to('meta')  # beside a runtime's own they would make the peak
    trials = list(try_out(bundle, eager, candidates, known=known))
    choice = _fastest(trials, problems) if wanted == AUTO else _requested(bundle, trials[1:])
    return choice if keep_weights else _with_its_weights_only(bundle, device, choice)


def try_out(
    bundle: Bundle, eager: Backend, candidates: Mapping[str, Make],
    clip: Mapping[Modality, Input] | None = None,
    known: Mapping[Subset, Logits] | None = None,
) -> Iterator[Trial]:
    """
    Compare candidates with eager, which is the first of the trials.

    :param candidates: label → how to make it; a `KarmmaError` is noted.
    :param clip: their input; None: noise.
    :param known: eager's logits for it; eager is not run then, for that takes more time and
        memory than everything else.
    """
    clip = clip or check_clip(bundle.spec, eager.modalities)
    if known is not None:
        yield Trial(EAGER, eager, difference=0.0)
    else:
        started = time.perf_counter()
        known = predict_subsets(eager, clip)
        spent = time.perf_counter() - started
        yield Trial(EAGER, eager, _seconds(eager, clip) if spent < _ENOUGH_S else spent, 0.0)
    for label, make in candidates.items():
        try:
            backend = make()
            off = difference(predict_subsets(backend, clip), known)
            yield Trial(label, backend, _seconds(backend, clip), off)
        except KarmmaError as error:
            yield Trial(label, error=error)


def known_logits(bundle: Bundle) -> dict[Subset, Logits] | None:
    """Return a large network's eager outputs for the check clip, if an export has them."""
    if sum(weights.numel() for weights in bundle.network.parameters()) < LARGE:
        return None
    exports, _ = find_exports(bundle)
    clip = check_clip(bundle.spec, bundle.network.modalities) if exports else {}
    return next((known for each in exports
                 if (known := read_eager_logits(each, clip)) and _complete(known, bundle)), None)


def _complete(known: Mapping[Subset, Logits], bundle: Bundle) -> bool:
    """Whether there are finite logits for all subsets and heads: else anything agrees."""
    modalities = bundle.network.modalities
    wanted = {head: (size,) for head, size in bundle.vocabulary.sizes.items()}
    return known.keys() == {modalities, *((m,) for m in modalities)} and all(
        {head: x.shape for head, x in heads.items()} == wanted
        and all(np.isfinite(x).all() for x in heads.values()) for heads in known.values())


def read_export(bundle: Bundle, export: Export, *, full: bool = False) -> Backend:
    """
    Make the backend of an export, with as many threads as torch has.

    :param full: compute in fp32 from weights in bf16; of OpenVINO only.
    :raises KarmmaError: when its runtime is not installed or cannot read it, or it is not of
        this network.
    """
    threads = torch.get_num_threads()
    if export.runtime == OPENVINO:
        return load_openvino(export, bundle.network, threads, full)
    return load_onnx(export, bundle.network, threads)


def compiled(bundle: Bundle, device: str) -> Backend:
    """
    Compile a network for a device; on a processor at its first inference.

    :raises InvalidSettingError: when that fails.
    """
    if not device.startswith('cuda'):
        return CompiledCPU(bundle.network)
    shapes = {m: bundle.spec.input_shape(m) for m in bundle.network.modalities}
    try:
        return CompiledCUDA(bundle.network, shapes, device)
    except RuntimeError as error:
        raise _not_compiled(error) from error


def _candidates(
    bundle: Bundle, device: str, wanted: str
) -> tuple[dict[str, Make], list[str]]:
    """Return label → how to make it, and the exports that cannot be used."""
    on_gpu = device.startswith('cuda')
    if on_gpu and wanted in FORMATS.values():
        raise InvalidSettingError(
            'backend', wanted, f'{EAGER} or {COMPILED} on {device}',
            f'{wanted} runs on the processor here: set device to cpu')
    if wanted == COMPILED or on_gpu:
        return {COMPILED: lambda: _tried(compiled(bundle, device), bundle)}, []
    exports, problems = find_exports(bundle)
    readers: dict[str, Make] = {}
    labels = {e.label for e in exports}
    for export in (e for e in exports if wanted in (AUTO, e.runtime)):
        readers[export.label] = partial(read_export, bundle, export)
        # One frame is little work, and to convert it to bf16 may take longer than bf16 saves.
        if export.label == f'{OPENVINO} {BF16}' and f'{OPENVINO} {FP32}' not in labels and any(
                own.stateful for own in chunks_of(bundle.network).values()):
            readers[f'{export.label} in {FP32}'] = partial(
                read_export, bundle, export, full=True)
    return readers, problems


def _tried(backend: Backend, bundle: Bundle) -> Backend:
    """Compile now, and report any error as one of the setting."""
    try:
        backend.infer(check_clip(bundle.spec, backend.modalities))
    except Exception as error:
        raise _not_compiled(error) from error
    return backend


def _not_compiled(error: Exception) -> InvalidSettingError:
    return InvalidSettingError(
        'backend', COMPILED, EAGER,
        f'this network cannot be compiled here ({first_line(error)}); '
        'a processor needs a C++ compiler')


def _seconds(backend: Backend, clip: Mapping[Modality, Input]) -> float:
    """Time one inference from all modalities; small networks several times."""
    if backend.parts is None:
        run: Callable[[], Logits] = partial(backend.infer, clip)
    else:
        tokens = newest(backend.parts, clip)

        def run() -> Logits:
            return backend.fuse(tokens())

    times: list[float] = []
    while not times or (sum(times) < _ENOUGH_S and len(times) < 9):
        started = time.perf_counter()
        run()
        times.append(time.perf_counter() - started)
    return statistics.median(times)


def _fastest(trials: list[Trial], problems: list[str]) -> BackendChoice:
    best = min((t for t in trials if t.agrees), key=lambda t: t.seconds)
    others = [str(t) for t in trials if t is not best and t.label != EAGER]
    only = ': the fastest' if math.isfinite(best.seconds) else ', nothing else can be used'
    first = f'{best}, {trials[0]}' if best is not trials[0] else f'{best}{only}'
    assert best.backend is not None
    return BackendChoice(best.backend, '; '.join([first, *others, *problems]))


def _requested(bundle: Bundle, trials: list[Trial]) -> BackendChoice:
    """
    Choose the fastest of the requested ones.

    :raises KarmmaError: when none can be used: the error of the first.
    """
    usable = [t for t in trials if t.agrees]
    if usable:
        best = min(usable, key=lambda t: t.seconds)
        assert best.backend is not None
        return BackendChoice(best.backend, f'{best}: requested')
    if trials[0].error is not None:
        raise trials[0].error
    raise BundleError(
        bundle.path, f'{trials[0]}', 'export it again, in a higher precision, or take backend '
        f'{EAGER}')


def _with_its_weights_only(bundle: Bundle, device: str, choice: BackendChoice) -> BackendChoice:
    """
    Free weights that only PyTorch uses, or read those again that it lacks now.

    :raises BundleError: when others have been written meanwhile.
    """
    if choice.backend.name in FORMATS.values():
        bundle.network.to('meta')
        return choice
    if not any(weights.is_meta for weights in bundle.network.parameters()):
        return choice
    again = load_bundle(bundle.path, device)
    if again.sha256 != bundle.sha256:
        raise BundleError(bundle.path, 'has changed while it was being loaded', 'load it again')
    return BackendChoice(Eager(again.network, device), choice.reason)


def _none(bundle: Bundle, wanted: str, problems: list[str]) -> BundleError:
    name = next(name for name, runtime in FORMATS.items() if runtime == wanted)
    problem = '; '.join(problems) or f'nothing is exported for {wanted}'
    return BundleError(bundle.path, problem, f'karmma export {bundle.path} --to {name}')


CPU, CUDA = 'cpu', 'cuda'
HELP = 'auto, cpu, cuda or cuda:N; auto takes the first CUDA device if there is one'
"""Help text of an option `--device`."""


def choose_device(text: str, setting: str = 'device') -> str:
    """
    Resolve `auto` and check the name against the devices of this machine.

    :param setting: name of the parameter or option, for the error.
    :returns: `cpu` or `cuda:N`.
    :raises InvalidSettingError: for a device that PyTorch does not find here.
    """
    count = torch.cuda.device_count()
    if text == AUTO:
        return f'{CUDA}:0' if count else CPU
    present = [CPU, *(f'{CUDA}:{i}' for i in range(count))]
    name = f'{CUDA}:0' if text == CUDA else text
    if name not in present:
        allowed = [AUTO, *present, *([CUDA] if count else [])]
        raise InvalidSettingError(setting, text, ', '.join(allowed), _devices(count))
    return name


def _devices(count: int) -> str:
    """Describe the devices that PyTorch finds on this machine."""
    if count:
        names = ', '.join(f'cuda:{i} is {torch.cuda.get_device_name(i)}' for i in range(count))
        return f'PyTorch finds {count} CUDA device{"s" * (count > 1)} here: {names}'
    reason = ('this build of PyTorch has no CUDA support' if torch.version.cuda is None
              else 'the NVIDIA driver reports none')
    return f'PyTorch finds no CUDA device here: {reason}'
