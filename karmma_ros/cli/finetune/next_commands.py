"""The commands that follow a fine-tuning, as they can be typed."""

from __future__ import annotations

from pathlib import Path
import shlex

from karmma_ros.bags.reader import Bag
from karmma_ros.bags.topics import AUDIO_INFO, choose_topics, microphone_of, parse_topics
from karmma_ros.bags.training_clips import find_bags, open_bag
from karmma_ros.cli.finetune.labelled_bags import LabelledBags
from karmma_ros.cli.finetune.run_record import LABELS, RUN
from karmma_ros.data.folds import TEST
from karmma_ros.modalities import modality_type
from karmma_ros.modality import Modality
from karmma_ros.model.bundle import Bundle

_ARGUMENTS = ('image', 'flow', 'audio', AUDIO_INFO, 'detections')
"""Topics that karmma.launch.py has an argument for."""


def next_commands(out: Path, base: Bundle, labelled: LabelledBags) -> str:
    """
    Return how to export, evaluate and launch a model.

    Test recordings are evaluated, else one that trained it, with a comment. The topics are those
    of the recording. Where classes were renamed, the labels are those of the record of the run.

    :param base: what the model was made of, with its modalities.
    """
    paths = find_bags(labelled.settings.files)
    test = sorted({labelled.labels[i].recording for i in labelled.division.rows(TEST)})
    names = test or [labelled.labels[0].recording]
    bags = ' '.join(shlex.quote(str(paths[name])) for name in names)
    truth = out / RUN / LABELS if labelled.are_renamed else labelled.path
    model, labels, report = (shlex.quote(str(x)) for x in (out, truth, f'{out}_report'))
    settings, more, launch = labelled.settings, '', f'model:={model}'
    if settings.topics:
        more += ' '.join(('--topics', *map(shlex.quote, settings.topics), ''))
    if settings.parameters:
        more += f'--params {shlex.quote(settings.parameters)} '
        launch += f' params_file:={shlex.quote(settings.parameters)}'
    comment = '' if test else '  # it trained the model: better one of another day'
    with open_bag(paths[names[0]], settings) as bag:
        topics = _launch_arguments(bag, base, labelled)
    return (
        f'next:\n  karmma export {model} --to openvino\n'
        f'  karmma bag evaluate {bags} --model {model} --ground-truth {labels} {more}--out '
        f'{report}{comment}\n'
        f'  ros2 launch karmma_ros karmma.launch.py {launch}{topics}')


def _launch_arguments(bag: Bag, base: Bundle, labelled: LabelledBags) -> str:
    """Return the arguments of karmma.launch.py for the topics of a bag."""
    choice = choose_topics(bag, parse_topics(labelled.settings.topics), base.network.modalities,
                           spec=base.spec)
    given, further = list[str](), list[str]()
    for role, topic in choice.topics.items():
        if microphone_of(role):
            name = role
        elif role in {m.value for m in base.network.modalities}:
            name = modality_type(Modality(role)).topic_name
        else:
            continue
        word = f'{name}:={topic.name.removesuffix("/compressed")}'
        (given if name in _ARGUMENTS else further).append(word)
    if further:
        given.append(f'remap:="{" ".join(further)}"')
    return ''.join(f' {word}' for word in given)
