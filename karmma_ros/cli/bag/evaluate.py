"""`karmma bag evaluate`: how well a model does on recorded bags, as a report."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import datetime, timezone
import os
from pathlib import Path
import shlex
import sys
import time
from typing import Any

from jsonargparse import Namespace
from karmma_ros.bags import report
from karmma_ros.bags.bag_message import BagFrames
from karmma_ros.bags.bag_run import BagRun
from karmma_ros.bags.evaluate import EvaluatedBag, Settings
from karmma_ros.bags.faults import (
    CORRUPT_HELP,
    CORRUPT_METAVAR,
    DropInterval,
    Fault,
    INTERVAL_S,
    parse_corrupt,
    parse_delay,
    parse_drop_interval,
    parse_drop_messages,
)
from karmma_ros.bags.parallel import evaluate_all, Job, Outcome
from karmma_ros.bags.topics import NONE, parse_topics, TRUTH
from karmma_ros.cli.options import (
    add_bucket_option,
    add_device_option,
    add_output_option,
    add_worker_options,
    command_parser,
    CommandParser,
    MODEL_HELP,
    open_model,
    this_machine,
    to_path,
    worker_device,
    workers_of,
    writing,
)
from karmma_ros.cli.progress import Bars
from karmma_ros.cluster.bucket import bucket_cache, BucketCache, expand
from karmma_ros.cluster.engine import Workers
from karmma_ros.data.labels.label_file import read_label_file, recording_name
from karmma_ros.data.recordings import SPLITS
from karmma_ros.errors import (
    DataError,
    InvalidSettingError,
    KarmmaError,
    printable,
    SENTENCE_LENGTH,
)
from karmma_ros.evaluation.ground_truth import TIMES, Truth
from karmma_ros.modalities import input_modalities
from karmma_ros.modality import Modality
from karmma_ros.model.bundle import Bundle
from karmma_ros.stream.settings import (
    ALL_INPUTS,
    event_settings,
    INPUT_NAMES,
    MUTE_HELP,
    MUTE_METAVAR,
    node_parameters,
    parse_mute,
)
import numpy as np
from numpy.typing import NDArray
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

RUN_DIR = 'work'
"""Folder in that of the report, from which a stopped run resumes."""
TRAINING_LABELS = Path('run', 'labels.csv')
"""File in a model directory, from `karmma finetune`: what the model was trained on."""
SWEEP = tuple(tenth / 10 for tenth in range(1, 10))
_TABLES = ('.csv', '.tsv', '.txt')


def _parser() -> CommandParser:
    parser = command_parser(
        'karmma bag evaluate', 'Replay bags through the code of the node and write a report: '
        'accuracy, events, latency, calibration and robustness to missing inputs. A stopped run '
        'resumes.', 'BAG ... --model MODEL --out DIR [OPTION ...]')
    parser.add_argument('bags', metavar='BAG', nargs='+', type=to_path,
                        help='folder written by ros2 bag record, or a .mcap or .db3 file; also '
                        's3://BUCKET/PATH and other URLs, with * for any name')
    parser.add_argument('--model', metavar='MODEL', type=str, required=True,
                        help=MODEL_HELP)
    parser.add_argument('--ground-truth', metavar='CSV|TOPIC', type=str, help='table or topic of '
                        'the annotated actions (default: a topic of type '
                        'karmma_msgs/ActionAnnotation)')
    parser.add_argument('--ground-truth-times', type=str, choices=TIMES, default='auto',
                        help='whether times of the table count from the start of the bag or since '
                        '1970')
    parser.add_argument('--ground-truth-recording', metavar='NAME', type=str, help='rows of the '
                        'table to use, if it covers several recordings (default: those whose name '
                        'is in the name of the bag)')
    add_output_option(parser, 'output folder: report.html, report.json, report.md, and work/ for '
                      'resuming')
    parser.add_argument('--topics', metavar='INPUT=TOPIC', nargs='+', type=str, default=[],
                        help='topics of inputs, as rgb=/front/image; none disables an input '
                        '(default: found by message type)')
    parser.add_argument('--params', metavar='YAML', type=to_path,
                        help='parameter file of the node (default: its default parameters)')
    parser.add_argument('--rate', type=float, help='windows per second (default: parameter rate '
                        'of the node, 5 unless changed)')
    parser.add_argument('--leave-one-out', action='store_true', help='also predict each window '
                        'without each of its inputs: which one mattered, above all in failure '
                        'cases (default: parameter leave_one_out of the node, false unless '
                        'changed)')
    add_device_option(parser)
    add_worker_options(parser, 'bags')
    add_bucket_option(parser)
    _add_faults(parser)
    return parser


def _add_faults(parser: CommandParser) -> None:
    faults = parser.add_argument_group(
        'fault injection',
        f'The given faults are applied together in one more run. INPUT: {INPUT_NAMES}')
    faults.add_argument('--subsets', action='store_true', help='also evaluate every subset of '
                        'the modalities, and the accuracy under modality dropout')
    faults.add_argument('--sweep', action='store_true', help='as --subsets, and nine more runs '
                        'that drop 10 % to 90 % of the intervals of every input')
    faults.add_argument('--drop-intervals', metavar='[INPUT=]PROBABILITY', type=str,
                        action='append', default=[], help='drop all messages of randomly chosen '
                        'intervals, as audio=0.5 or 50%')
    faults.add_argument('--interval', metavar='SECONDS', type=float, default=INTERVAL_S,
                        help='length of the intervals of --drop-intervals')
    faults.add_argument('--mute', metavar=MUTE_METAVAR, type=str, action='append', default=[],
                        help=MUTE_HELP)
    faults.add_argument('--delay', metavar='[INPUT=]SECONDS', type=str, action='append',
                        default=[], help='delay all messages, as audio=0.3')
    faults.add_argument('--drop-messages', metavar='[INPUT=]PROBABILITY', type=str,
                        action='append', default=[], help='drop randomly chosen messages, as 5%')
    faults.add_argument('--corrupt', metavar=CORRUPT_METAVAR, type=str, action='append',
                        default=[], help=CORRUPT_HELP)
    faults.add_argument('--seed', type=int, default=0, help='random seed of the faults')


def main(arguments: Sequence[str]) -> int:
    """
    Evaluate a model on bags and write the report.

    :returns: 0; 1 when a part of a bag is missing in the report, 130 when it is interrupted.
    """
    try:
        return _evaluate(arguments)
    except KeyboardInterrupt:
        print('karmma bag evaluate: stopped; the same command resumes', file=sys.stderr)
        return 130


def _evaluate(arguments: Sequence[str]) -> int:
    options = _parser().parse_args(list(arguments))
    started, date = time.perf_counter(), datetime.now(timezone.utc)
    workers = workers_of(options)
    options.device = worker_device(options, workers)
    bundle = open_model(options.model, '--model')
    settings = _settings(options, input_modalities(bundle.network.modalities, bundle.spec))
    events = event_settings(settings.values)
    with writing('--out', options.out):
        (options.out / RUN_DIR).mkdir(parents=True, exist_ok=True)
    bags = [path for each in options.bags for path in expand(each)]
    paths = list({path.resolve(): path for path in bags}.values())
    outcomes = _outcomes(
        paths, bundle, replace(settings, bags=tuple(paths)), workers, options)
    console = Console(soft_wrap=True)
    runs, left_out = _runs(
        paths, outcomes, bundle, options, settings.values['rgb.bits'], console)
    evaluated = [outcome for outcome in outcomes if isinstance(outcome, EvaluatedBag)]
    provenance = _provenance(date, time.perf_counter() - started, evaluated)
    if left_out:
        provenance['left out'] = left_out
    _print_scores(console, report.write(options.out, runs, _model(bundle), provenance, events))
    console.print(f'report: {options.out / report.HTML}, {report.JSON} and {report.MARKDOWN}',
                  markup=False, highlight=False)
    problems = [f'left out: {sentence}' for sentence in left_out]
    problems += [sentence for run in runs for sentence in _shortfalls(run)]
    for sentence in problems:
        print(f'karmma bag evaluate: {sentence}', file=sys.stderr)
    return 1 if problems else 0


def _shortfalls(run: BagRun) -> Iterator[str]:
    """Yield a sentence for each part of a bag that is missing in the report."""
    info = run.info
    if info.missing:
        yield (f'{info.path}: {info.missing:,} of its messages or parts could not be read: see '
               '"missing" above')
    if not len(next(iter(run.predictions.values()))):
        yield (f'{info.path}: there is no window: nothing was recognised. The notes above state '
               'the reason; `--topics` and `--params` change what is used')


def _outcomes(
    paths: Sequence[Path], bundle: Bundle, settings: Settings, workers: Workers,
    options: Namespace,
) -> list[Outcome]:
    cores = workers.cpus if workers.address else (os.cpu_count() or 1) // workers.count
    # One core is left to the reading thread: torch's threads would wait for each other.
    job = Job(bundle.path, settings, options.out / RUN_DIR, options.device, max(1, cores - 1),
              buckets=_buckets(options))
    names = [path.name for path in paths]
    labels = [printable(p if names.count(p.name) > 1 else p.name) for p in paths]
    with Bars() as bars:
        return evaluate_all(
            paths, job, workers,
            lambda index, done, total: bars(labels[index], done, total), bars.print_line)


def _runs(
    paths: Sequence[Path], outcomes: Sequence[Outcome], bundle: Bundle,
    options: Namespace, bits: int, console: Console,
) -> tuple[list[BagRun], list[str]]:
    """
    Return the bags of the report, and a sentence for each one that is left out.

    :raises KarmmaError: when no bag can be used.
    """
    runs: list[BagRun] = []
    errors: list[KarmmaError] = []
    for path, outcome in zip(paths, outcomes):
        try:
            if isinstance(outcome, KarmmaError):
                raise outcome
            runs.append(_bag_run(path, outcome, bundle, options, bits))
            _print_bag(console, runs[-1], outcome.notes)
        except KarmmaError as error:
            errors.append(error)
    if not runs:
        for other in errors[1:]:
            print(f'karmma bag evaluate: {other}', file=sys.stderr)
        raise errors[0]
    return runs, list(map(str, errors))


def _settings(options: Namespace, modalities: Collection[Modality]) -> Settings:
    values = node_parameters(options.params, modalities)
    if options.rate is not None:
        values['rate'] = options.rate
    if not 0 < values['rate'] <= 1000:
        raise InvalidSettingError('--rate', values['rate'], 'windows a second, above 0')
    topics = parse_topics(options.topics)
    if options.ground_truth is not None:
        topics[TRUTH] = NONE if _is_table(options.ground_truth) else options.ground_truth
    given = _faults(options)
    sets = [given] if given else []
    if options.sweep:
        sets += [
            (DropInterval(ALL_INPUTS, probability, options.interval),) for probability in SWEEP
        ]
    return Settings(values, topics, options.subsets or options.sweep,
                    options.leave_one_out or values['leave_one_out'],
                    tuple(dict.fromkeys(sets)), options.seed)


def _faults(options: Namespace) -> tuple[Fault, ...]:
    if not options.interval > 0:
        raise InvalidSettingError('--interval', options.interval, 'seconds, above 0')
    return (*(parse_drop_interval(text, options.interval) for text in options.drop_intervals),
            *map(parse_mute, options.mute), *map(parse_delay, options.delay),
            *map(parse_drop_messages, options.drop_messages),
            *map(parse_corrupt, options.corrupt))


def _is_table(text: str) -> bool:
    """Return whether --ground-truth names a file and not a topic, which begins with / too."""
    return (not text.startswith('/') or Path(text).is_file()
            or Path(text).suffix.lower() in _TABLES)


def _bag_run(
    path: Path, evaluated: EvaluatedBag, bundle: Bundle, options: Namespace, bits: int,
) -> BagRun:
    truth = None
    if options.ground_truth is not None and _is_table(options.ground_truth):
        truth = Truth.read(
            options.ground_truth,
            evaluated.info,
            bundle.vocabulary,
            times=options.ground_truth_times,
            recording=options.ground_truth_recording,
        )
    elif evaluated.truth_topic:
        truth = Truth.from_messages(
            [(*truth, *ids) for truth, ids in zip(evaluated.truths, evaluated.truth_ids)],
            evaluated.info, bundle.vocabulary, evaluated.truth_topic)
    info = replace(evaluated.info, warnings=[
        *evaluated.info.warnings, *_trained_on(path, bundle.path)])
    camera, buckets = info.topics.get(Modality.RGB.value, {}), _buckets(options)

    def frames(times_ns: Sequence[int]) -> Iterator[NDArray[np.uint8] | None]:
        with buckets.local(path) as local:
            yield from BagFrames(
                local, camera.get('topic', ''), camera.get('type', ''), bits)(times_ns)
    return BagRun(info, evaluated.predictions, truth, bundle.vocabulary, bundle.spec, frames,
                  evaluated.recorded)


def _buckets(options: Namespace) -> BucketCache:
    return bucket_cache(options.bucket_cache, '--bucket-cache')


def _trained_on(path: Path, model: Path) -> Iterator[str]:
    """Yield a sentence if the model was fine-tuned on a recording of the name of the bag."""
    with suppress(DataError):  # a model without a record of its training, or with a damaged one
        name = recording_name(path.name)
        if any(x.recording == name and x.split != SPLITS[2]
               for x in read_label_file(model / TRAINING_LABELS).labels):
            yield (f'the model was trained on a recording of this name, {name}: if it is this '
                   'one, the scores are too good')


def _model(bundle: Bundle) -> dict[str, Any]:
    return {
        'id': bundle.model_id, 'name': bundle.name, 'sha256': bundle.sha256,
        'dataset': bundle.dataset, 'sensors': [m.value for m in bundle.network.modalities],
        'window_s': bundle.spec.duration}


def _provenance(
    date: datetime, seconds: float, evaluated: Sequence[EvaluatedBag]
) -> dict[str, Any]:
    provenance: dict[str, Any] = {
        'command': printable(shlex.join(['karmma', *sys.argv[1:]]), SENTENCE_LENGTH),
        'date': date.isoformat(timespec='seconds'), 'machine': this_machine(),
        'evaluation_s': seconds}
    if all(each.fresh for each in evaluated):  # else only a part was timed
        provenance['real_time'] = sum(
            each.info.seconds for each in evaluated) / max(seconds, 1e-9)
    return provenance


def _print_bag(console: Console, run: BagRun, notes: Iterable[str]) -> None:
    """Print the chosen topics, the missing messages and the warnings of a bag."""
    info = run.info
    lines = [f'{info.path}: {info.seconds:.1f} s, {info.storage}, {info.messages:,} messages']
    lines += [f'  {note}' for note in notes]
    lines += [f'  missing: {reason}: {count:,}' for reason, count in info.missing_messages.items()]
    lines += [f'  note: {text}' for text in info.warnings]
    if run.truth is None:
        lines.append('  no ground truth: the predictions are shown, but not scored')
    else:
        count = len(run.truth.actions)
        lines.append(
            f'  ground truth: {count:,} action{"s" * (count != 1)} from {run.truth.source}')
        lines += [f'  note: {text}' for text in run.truth.warnings]
    console.print('\n'.join(printable(line, SENTENCE_LENGTH) for line in lines),
                  markup=False, highlight=False)


def _print_scores(console: Console, scores: Mapping[str, Any]) -> None:
    heads = list(scores['conditions'][0]['actions'])
    table = Table('condition', 'windows', *(f'{head} top-1, %' for head in heads),
                  box=SIMPLE_HEAD)
    for column in table.columns[1:]:
        column.justify = 'right'
    for each in scores['conditions']:
        accuracies = (each['actions'].get(head, {}).get('top1') for head in heads)
        table.add_row(printable(each['name']), f'{each["windows"]:,}', *(
            '–' if top1 is None else f'{100 * top1:.1f}' for top1 in accuracies))
    console.print(table, markup=False)
