"""`karmma evaluate`: models side by side, scored on a data set for every subset of sensors."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import date
from pathlib import Path
import re
import sys
from typing import Any, get_args, Literal

from jsonargparse import Namespace
from karmma_ros.cli.open_data import open_data
from karmma_ros.cli.options import (
    add_custom_encoders_option,
    add_data_options,
    add_device_option,
    add_output_option,
    command_parser,
    CommandParser,
    data_cache,
    open_model,
    this_machine,
    writing,
)
from karmma_ros.cli.progress import Bars
from karmma_ros.data.corrupted import recorded, sensors_of
from karmma_ros.data.datasets import clips_digest, DataSettings
from karmma_ros.data.samples import Clips, Splits
from karmma_ros.errors import BundleError, InvalidSettingError
from karmma_ros.evaluation.classification import score, top1
from karmma_ros.evaluation.corruption_report import card_table
from karmma_ros.evaluation.corruption_scores import (
    check_choice,
    CorruptionChoice,
    plan,
    score_corruptions,
)
from karmma_ros.evaluation.corruptions import ConditionCollector
from karmma_ros.evaluation.inference import (
    BackendNetwork,
    collect_sharded,
    LoaderSettings,
    Network,
    spread_evenly,
)
from karmma_ros.evaluation.late_fusion import late_fusion
from karmma_ros.evaluation.model_card import (
    ACCURACY,
    accuracy_section,
    accuracy_title,
    CONFIDENCE,
    confidence_section,
)
from karmma_ros.evaluation.predictions import VERSION as PREDICTIONS_VERSION
from karmma_ros.evaluation.published import DROPOUT_CURVES
from karmma_ros.evaluation.report import MARKDOWN, markdown, ScoredData, ScoredModel, write_report
from karmma_ros.modalities import input_modalities
from karmma_ros.modality import Modality, parse_subset, subset_name
from karmma_ros.model.backends import selection
from karmma_ros.model.backends.exports import Export, find_exports
from karmma_ros.model.backends.selection import read_export
from karmma_ros.model.bundle import Bundle, CARD, save_metrics, write_card_section
from karmma_ros.prediction import Vocabulary
from karmma_ros.storage import fingerprint

Split = Literal['train', 'validation', 'test']
FigureFormat = Literal['png', 'svg', 'pdf']
_LONGEST_NAME = 80
_PUBLISHED_SENSORS = {'EPIC-KITCHENS-100': 'V+F+A', 'Something-Something V2': 'V+F+D'}
_PUBLISHED_NAMES = {'baseline': 'Baseline', 'delta': 'Baseline with dropout', 'karmma': 'KARMMA'}

Subsets = list[tuple[Modality, ...]]


@dataclass(frozen=True)
class _Entry:
    """A model, its name in the tables, and the data set with clips of its specification."""

    system: str
    bundle: Bundle
    splits: Splits
    export: Export | None = None
    """Replaces PyTorch; None for PyTorch."""

    def network(self, device: str) -> Network:
        """
        Return the network to score.

        :raises KarmmaError: when an export's runtime is not installed or cannot read it.
        """
        if self.export is not None:
            return BackendNetwork(read_export(self.bundle, self.export))
        return self.bundle.network.to(device)


def main(arguments: Sequence[str]) -> int:
    """Run `karmma evaluate MODEL… --out DIR`."""
    parser = _parser()
    given = parser.parse_args(list(arguments))
    settings: DataSettings = parser.instantiate(given).data
    loading = LoaderSettings(
        given.batch_size, given.workers, selection.choose_device(given.device, '--device')
    )
    chosen = [parse_subset(text) for text in given.subsets] if given.subsets else None
    spread_evenly(1, given.limit)  # report a wrong limit before the work
    named = _named_bundles(given.models, given.custom_encoders)
    _check_subsets(named, chosen)
    corruptions = _corruptions(given, named)
    if given.card and (given.exports or chosen is not None
                       or any(not bundle.path.is_dir() for _, bundle in named)):
        raise InvalidSettingError('--card', 'true', 'model directories, and neither --exports nor '
                                  '--subsets')
    exports = [_exports(bundle) if given.exports else [] for _, bundle in named]
    with Bars() as bars:
        entries = _with_data(
            named, needed(settings, given.split), data_cache(given, settings), bars)
        entries = [each for entry, group in zip(entries, exports)
                   for each in (entry, *(_exported(entry, export) for export in group))]
        scored = [_score(entry, given, settings, loading, chosen, bars, corruptions)
                  for entry in entries]
    data = ScoredData(
        entries[0].splits.name, given.split, len(scored[0].predictions),
        {**_own(settings), 'limit': given.limit, 'subsets': given.subsets})
    report = write_report(
        Path(given.out), data, scored, figure_format=given.figure_format,
        references=_references(entries))
    print(markdown(report))
    if given.card:
        _write_cards(entries, scored, given.split)
    print(f'wrote {Path(given.out) / MARKDOWN}, scores.json and figures')
    return 0


def _parser() -> CommandParser:
    parser = command_parser(
        'karmma evaluate', 'Score models for every subset of their sensors: accuracy, '
        'calibration, accuracy under modality dropout. A stopped run resumes.',
        'MODEL ... --out DIR [OPTION ...]')
    parser.add_argument(
        'models', nargs='+', type=str, metavar='MODEL', help='model directory, or NAME=DIRECTORY '
        'to name it; models of one given name are the seeds of one system. DIRECTORY+DIRECTORY: '
        'late fusion, the log-probabilities of models of different sensors summed')
    parser.add_argument('--split', type=Split, default='test', help='split to score')
    add_output_option(parser, 'directory for tables, figures, scores.json and the predictions')
    parser.add_argument(
        '--subsets', type=str, nargs='+', metavar='SUBSET', help='score only these, such as '
        'V+A V A; the dropout curve and averages need all of them (default: all)')
    parser.add_argument('--exports', action='store_true', help='also score the exports of each '
                        'model: what their precision costs')
    parser.add_argument(
        '--corruptions', type=str, nargs='*', metavar='NAME', help='also score clips with '
        'corrupted sensors: these corruptions, such as covered hiss, or all; and clips with late '
        'sensors, two corrupted ones, and the first part alone')
    parser.add_argument('--severities', type=str, default='1,2,3,4,5',
                        help='severities of the corruptions, 1 to 5, such as 1,3,5')
    parser.add_argument('--seed', type=int, default=0, metavar='SEED',
                        help='seed of the noise of the corruptions')
    parser.add_argument('--card', action='store_true', help='also write the scores into the '
                        'card of each model: those of --corruptions, without it the accuracy and '
                        'the calibration')
    parser.add_argument('--batch-size', type=int, default=16, help='clips a batch')
    parser.add_argument('--workers', type=int, default=0, help='processes that load clips')
    add_device_option(parser)
    parser.add_argument('--limit', type=int, metavar='N',
                        help='score N clips only, evenly spaced in the split')
    parser.add_argument('--figure-format', type=FigureFormat, default='png',
                        help='file format of the figures')
    add_custom_encoders_option(parser)
    add_data_options(parser)
    return parser


def _named_bundles(words: Sequence[str], custom_encoders: bool) -> list[tuple[str, Bundle]]:
    """Load the models; one without a name is named by its bundle, or by its path if two are."""
    parts = [word.partition('=') if _is_named(word) else ('', '', word) for word in words]
    bundles = [_bundle(path, custom_encoders) for _, _, path in parts]
    times = Counter(bundle.name for bundle in bundles)
    given = {name for name, _, _ in parts}
    return [
        (name or (bundle.name if times[bundle.name] == 1 and bundle.name not in given else path),
         bundle)
        for (name, _, path), bundle in zip(parts, bundles)]


def _bundle(text: str, custom_encoders: bool) -> Bundle:
    """Load a model directory, or the late fusion of several that are joined by `+`."""
    paths = [text] if Path(text).is_dir() else text.split('+')
    bundles = [open_model(path, 'MODEL', custom_encoders=custom_encoders, named=False)
               for path in paths]
    return bundles[0] if len(bundles) == 1 else late_fusion(bundles)


def _is_named(word: str) -> bool:
    return '=' in word and not Path(word).is_dir()


def _check_subsets(named: Sequence[tuple[str, Bundle]], chosen: Subsets | None) -> None:
    for system, bundle in named:
        for subset in chosen or ():
            if not set(subset) <= set(bundle.network.modalities):
                raise InvalidSettingError(
                    '--subsets', subset_name(subset), 'made of the sensors of each model; '
                    f'{system} has {subset_name(bundle.network.modalities)}')


def needed(settings: DataSettings, split: str) -> DataSettings:
    """Render one sample only of the splits that are not scored."""
    others: dict[str, Any] = {name: 1 for name in get_args(Split) if name != split}
    return replace(settings, synthetic_kitchen=replace(settings.synthetic_kitchen, **others))


def _own(settings: DataSettings) -> dict[str, Any]:
    """Return the settings of the chosen data set only; the clips depend on the model."""
    return {'dataset': settings.dataset, **asdict(getattr(settings, settings.dataset))}


def _with_data(
    named: Sequence[tuple[str, Bundle]], settings: DataSettings, cache: Path, bars: Bars
) -> list[_Entry]:
    """Open the data for each model; models with equal specifications share them."""
    opened: dict[str, Splits] = {}
    entries = []
    for system, bundle in named:
        key = fingerprint(bundle.spec.to_dict())
        if key not in opened:
            # Clips of different shapes have the same file names.
            folder = cache if bundle.spec == settings.spec else cache / key
            opened[key] = open_data(settings, bundle.spec, folder, bars)
        check_fit(bundle, opened[key])
        entries.append(_Entry(system, bundle, opened[key]))
    return entries


def _exports(bundle: Bundle) -> list[Export]:
    """
    Return the exports of a model, and print which cannot be used.

    :raises BundleError: when none can.
    """
    exports, problems = find_exports(bundle)
    if not exports:
        raise BundleError(bundle.path, '; '.join(problems) or 'nothing is exported',
                          f'karmma export {bundle.path} --to openvino')
    for problem in problems:
        print(f'karmma evaluate: not scored: {problem}', file=sys.stderr)
    return exports


def _exported(entry: _Entry, export: Export) -> _Entry:
    return replace(entry, system=f'{entry.system}, {export.label}', export=export)


def check_fit(bundle: Bundle, splits: Splits) -> None:
    """
    Check that a model fits a data set.

    :raises BundleError: when it has other classes, or another specification of clips.
    """
    difference = _difference(bundle.vocabulary, splits.vocabulary)
    if difference:
        raise BundleError(
            bundle.path, f'does not fit {splits.name}: {difference}',
            f'score it on the data it was trained on ({bundle.dataset or "unknown"}), or train '
            'one on these with `karmma train`')
    wanted, offered = bundle.spec.to_dict(), splits.spec.to_dict()
    others = [name for name in wanted if wanted[name] != offered.get(name)]
    if others:
        raise BundleError(
            bundle.path, f'does not fit the clips of {splits.name}: '
            + ', '.join(f'{n} is {offered.get(n)}; expected {wanted[n]}' for n in others),
            'prepare the data by the specification of the model, or train one on these')


def _difference(ours: Vocabulary, theirs: Vocabulary) -> str:
    """Describe the first difference between the classes; '' without any."""
    if set(ours.heads) != set(theirs.heads):
        return f'it has the heads {", ".join(ours.heads)}, the data {", ".join(theirs.heads)}'
    for head, names in ours.heads.items():
        others = theirs.heads[head]
        for number, (name, other) in enumerate(zip(names, others)):
            if name != other:
                return f'its {head} {number} is {name!r}, that of the data {other!r}'
        if len(names) != len(others):
            return f'it has {len(names)} classes for {head}, the data {len(others)}'
    return ''


def _score(
    entry: _Entry, given: Namespace, settings: DataSettings, loading: LoaderSettings,
    chosen: Subsets | None, bars: Bars, corruptions: CorruptionChoice | None = None,
) -> ScoredModel:
    clips: Clips = getattr(entry.splits, given.split)
    indices = spread_evenly(len(clips), given.limit)
    folder = Path(given.out) / 'predictions' / _key(entry, settings, given, chosen, clips)
    bundle = entry.bundle
    title = f'scoring {entry.system} ({bundle.model_id})'
    device = loading.device if entry.export is None else 'cpu'
    predictions = collect_sharded(
        entry.network(device), clips, indices, folder, replace(loading, device=device),
        chosen=chosen, progress=bars.counter(title, len(indices)))
    scores = None
    if corruptions is not None:
        corrupted = recorded(clips)
        sensors = sensors_of(corrupted, bundle.network.modalities, bundle.spec, indices[0])
        collector = ConditionCollector(
            entry.network(device), corrupted, bundle.spec, replace(loading, device=device))
        scores = score_corruptions(
            collector.collect(
                plan(sensors, corruptions), indices, folder / f'corruptions_{corruptions.seed}',
                bars.counter(f'corrupting the sensors of {entry.system}', len(indices))),
            sensors, corruptions, bundle.calibration)
    bundle.network.cpu()  # frees the GPU's memory for the next model
    return ScoredModel(entry.system, bundle.model_id, predictions, bundle.calibration, scores)


def _corruptions(
    given: Namespace, named: Sequence[tuple[str, Bundle]]
) -> CorruptionChoice | None:
    """
    Return the chosen corruptions; None without any.

    :raises InvalidSettingError: for one that no model's sensor has, or another severity.
    """
    if given.corruptions is None:
        return None
    try:
        severities = tuple(sorted({int(text) for text in given.severities.split(',')}))
    except ValueError:
        raise InvalidSettingError('--severities', given.severities,
                                  'integers from 1 to 5, as 1,3,5') from None
    names = () if given.corruptions in ([], ['all']) else tuple(dict.fromkeys(given.corruptions))
    choice = CorruptionChoice(names, severities, given.seed)
    check_choice(choice, [m for _, bundle in named for m in input_modalities(
        bundle.network.modalities, bundle.spec)])
    return choice


def _write_cards(
    entries: Sequence[_Entry], scored: Sequence[ScoredModel], split: str
) -> None:
    for entry, each in zip(entries, scored):
        folder, clips = entry.bundle.path, len(each.predictions)
        with writing('MODEL', folder / CARD):
            if each.corruptions is None:
                title = accuracy_title(clips, f'{split} clips')
                scores = top1(each.predictions)
                save_metrics(folder, {f'{split}_top1': scores})
                write_card_section(folder, title, accuracy_section(scores), ACCURACY)
                if each.calibration:
                    write_card_section(folder, CONFIDENCE, confidence_section(
                        score(each.predictions, each.calibration), each.calibration,
                        f'{split} clips'))
            else:
                write_card_section(
                    folder, 'Corrupted sensors',
                    f'Action top-1 in percent on {clips:,} {split} clips of '
                    f'{entry.splits.name} while one sensor is corrupted, at severities '
                    f'{", ".join(map(str, each.corruptions.severities))}; "checked" is with the '
                    f'content checks of the node. {date.today()}, {this_machine()}.\n\n'
                    + card_table(each.corruptions))
        print(f'wrote {folder / CARD}')


def _key(
    entry: _Entry, settings: DataSettings, given: Namespace, chosen: Subsets | None, clips: Clips
) -> str:
    """Name the folder of a model's predictions by all that they depend on."""
    bundle = entry.bundle
    facts = {
        'version': PREDICTIONS_VERSION, 'weights': bundle.sha256,
        'architecture': bundle.config.to_dict(), 'clip': bundle.spec.to_dict(),
        'data': settings.dataset, 'split': given.split, 'clips': clips_digest(clips, settings),
        'limit': given.limit,
        'subsets': sorted(subset_name(s) for s in chosen) if chosen else None,
        **({'export': entry.export.sha256} if entry.export else {})}
    # The name is of a file that may be anybody's: it names no other folder.
    name = re.sub(r'[^\w.+-]', '_', bundle.name).lstrip('.')[:_LONGEST_NAME]
    return f'{name}_{fingerprint(facts)}'


def _references(entries: Sequence[_Entry]) -> Mapping[str, Sequence[float]]:
    """Return the curves of the paper, if a model has their sensors."""
    name = entries[0].splits.name
    sensors = {subset_name(entry.bundle.network.modalities) for entry in entries}
    if _PUBLISHED_SENSORS.get(name) not in sensors:
        return {}
    return {f'paper: {_PUBLISHED_NAMES[system]}': [percent / 100 for percent in curve]
            for system, curve in DROPOUT_CURVES[name].items()}
