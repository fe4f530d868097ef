"""
The published models that this package knows: what each recognises, costs and permits.

The facts are those of their publishers. Parameters and operations are counted here, on the network
that an import builds: two operations for each multiply-accumulate of a matrix product or a
convolution, one clip, as `karmma profile` counts. Nothing here loads torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from karmma_ros.errors import InvalidSettingError

FORBIDDEN = 'no commercial use'
"""Of a licence that forbids it."""


@dataclass(frozen=True)
class ZooEntry:
    """A published model."""

    name: str
    """As `karmma model pull` takes it."""
    page: str
    """URL of the page that publishes it."""
    licence: str
    """Of the weights, in words; where they have none of their own, that is stated."""
    dataset: str
    """What it was trained on."""
    classes: Mapping[str, int]
    """Head → number of classes."""
    clip: str
    """Length, rate and size of a clip, in words."""
    use: str
    """What it is good for."""
    paper: str
    """URL of the paper."""
    source: str = ''
    """As `karmma model import` takes it; empty for a model that cannot be imported."""
    weights: str = ''
    """Name of the weights, where a source has several."""
    url: str = ''
    """Of the file of weights; empty where it cannot be downloaded without a browser."""
    class_files: tuple[str, ...] = ()
    """Files with the names of the classes that an import needs, and where they come from."""
    modalities: tuple[str, ...] = ('rgb',)
    commercial_use: bool = True
    """False where the licence forbids it."""
    accuracy: Mapping[str, float] = field(default_factory=dict)
    """What its publishers measured, in %, such as `top-1`; empty where they state nothing."""
    accuracy_page: str = ''
    """URL of the page that states it."""
    protocol: str = ''
    """How they measured it."""
    parameters: int = 0
    """Counted here; 0 where no network here has these weights."""
    gflops: float = 0.0
    """Billions of operations for one clip, counted here."""
    published_gmacs: float = 0.0
    """Billions of multiply-accumulates that its publishers state, for `published_frames`."""
    published_frames: int = 0
    file_mib: float = 0.0
    """Size of the file of weights, MiB; 0 where it is not stated."""
    obstacle: str = ''
    """Why it cannot be imported; empty if it can."""

    @property
    def terms(self) -> str:
        """Return the licence and, where it forbids commercial use, that it does."""
        return self.licence if self.commercial_use else f'{self.licence}: {FORBIDDEN}'

    @property
    def file(self) -> str:
        """Return the name of the file of weights; empty where there is no URL."""
        return self.url.partition('?')[0].rpartition('/')[2]

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-ready mapping."""
        return {**asdict(self), 'importable': not self.obstacle}


_TORCHVISION_LICENCE = 'BSD-3-Clause of torchvision; the weights have no licence of their own'
_TORCHVISION = 'https://pytorch.org/vision/stable/models.html'
_DOWNLOADS = 'https://download.pytorch.org/models/'
_VIDEO_SWIN = 'https://github.com/SwinTransformer/Video-Swin-Transformer'
_VIDEO_SWIN_PAPER = 'https://arxiv.org/abs/2106.13230'
_TRAN_PAPER = 'https://arxiv.org/abs/1711.11248'
_OMNIVORE = 'https://github.com/facebookresearch/omnivore'
_STLT = 'https://github.com/gorjanradevski/revisiting-spatial-temporal-layouts'
_STLT_LICENCE = 'none stated, of code or weights'
_STLT_PAPER = 'https://arxiv.org/abs/2111.01936'
_STLT_CLIP = 'boxes in 16 frames of a whole video'
_LAVILA = 'https://github.com/facebookresearch/LaViLa'
_PYTORCHVIDEO = ('https://github.com/facebookresearch/pytorchvideo/blob/main/docs/source/'
                 'model_zoo.md')
_PYTORCHVIDEO_LICENCE = 'Apache-2.0 of PyTorchVideo; the weights have no licence of their own'
_CO3D = 'https://github.com/LukasHedegaard/co3d'
_MOVINET = 'https://github.com/Atze00/MoViNet-pytorch'
_DRIVE = 'https://drive.google.com/drive/folders/'
_EPIC_CLASSES = tuple(
    f'https://github.com/epic-kitchens/epic-kitchens-100-annotations/blob/master/{name}'
    for name in ('EPIC_100_verb_classes.csv', 'EPIC_100_noun_classes.csv'))
_SOMETHING_CLASSES = (
    'labels.json of https://developer.qualcomm.com/software/ai-datasets/something-something',)
_SOMETHING_ELSE_CLASSES = ('the labels of the split, of https://github.com/joaanna/something_else',)
_KINETICS = 'whole actions of people seen from outside'


def _torchvision(
    name: str, file: str, figures: tuple[int, float, float, int, float], top: tuple[float, float],
    clip: str, paper: str, use: str, weights: str = '',
) -> ZooEntry:
    """Return an entry for Kinetics-400; `figures` are from `parameters` to `file_mib`."""
    parameters, gflops, published_gmacs, published_frames, file_mib = figures
    return ZooEntry(
        name, _TORCHVISION, _TORCHVISION_LICENCE, 'Kinetics-400', {'action': 400}, clip, use,
        paper, f'torchvision:{name.removesuffix("_22k")}', weights, f'{_DOWNLOADS}{file}.pth',
        accuracy={'top-1': top[0], 'top-5': top[1]}, accuracy_page=_TORCHVISION,
        protocol='several clips of a video averaged', parameters=parameters, gflops=gflops,
        published_gmacs=published_gmacs, published_frames=published_frames, file_mib=file_mib)


_SWIN_T = 27_850_470
"""Parameters of Swin-T without its classifier, which has 769 for each class."""


def _radevski(
    name: str, dataset: str, classes: Mapping[str, int], folder: str, class_files: tuple[str, ...],
    use: str,
) -> ZooEntry:
    return ZooEntry(
        name, _DRIVE + folder, 'MIT of the code; the weights state none', dataset, classes,
        'as in its config.yaml, 224 x 224', f'{use}, by Swin-T',
        'https://arxiv.org/abs/2307.07483', 'radevski:FILE', class_files=class_files,
        parameters=_SWIN_T + 769 * sum(classes.values()))


def _lavila(
    name: str, file: str, top: tuple[float, float], parameters: int, gflops: float, use: str,
) -> ZooEntry:
    stem = f'clip_openai_timesformer_{file}'
    return ZooEntry(
        name, f'{_LAVILA}/blob/main/docs/MODEL_ZOO.md', 'MIT of the code; the weights state none',
        'Epic-Kitchens-100', {'verb': 97, 'noun': 300}, '16 frames in 2 s, 224 x 224',
        f'kitchens seen from the head of a person, {use}', 'https://arxiv.org/abs/2212.04501',
        f'lavila:{stem}', url='https://dl.fbaipublicfiles.com/lavila/checkpoints/dual_encoders/'
        f'ek100_cls/{stem}.pth', class_files=_EPIC_CLASSES,
        accuracy={'verb top-1': top[0], 'noun top-1': top[1]},
        accuracy_page=f'{_LAVILA}/blob/main/docs/MODEL_ZOO.md', protocol='16 frames of a segment',
        parameters=parameters, gflops=gflops)


def _x3d(
    name: str, file: str, clip: str, accuracy: Mapping[str, float], gflops: float,
    published: tuple[float, int], protocol: str, use: str,
) -> ZooEntry:
    """Return an entry for X3D; `published` are GMACs and their frames."""
    continual = name.startswith('co')
    return ZooEntry(
        name, _PYTORCHVIDEO, _PYTORCHVIDEO_LICENCE, 'Kinetics-400', {'action': 400}, clip,
        f'{_KINETICS}{use}', 'https://arxiv.org/abs/' + (
            '2106.00050' if continual else '2004.04730'), f'pytorchvideo:{name}',
        url=f'https://dl.fbaipublicfiles.com/pytorchvideo/model_zoo/kinetics/{file}.pyth',
        accuracy=accuracy, accuracy_page=_CO3D if continual else _PYTORCHVIDEO,
        protocol=protocol, parameters=3_794_274, gflops=gflops, published_gmacs=published[0],
        published_frames=published[1])


def _movinet(
    variant: str, side: int, top: tuple[float, float], parameters: int, gflops: float, use: str,
) -> ZooEntry:
    stem = f'model{variant.upper()}_stream_statedict_v3'
    return ZooEntry(
        f'movinet_{variant}_stream', _MOVINET,
        'Apache-2.0 of the authors; MIT of the port, whose weights state none', 'Kinetics-600',
        {'action': 600}, f'50 frames at 5 fps, {side} x {side}', f'{_KINETICS}, {use}',
        'https://arxiv.org/abs/2103.11511', f'movinet:{stem}',
        url=f'{_MOVINET}/blob/main/weights/{stem}?raw=true', class_files=(
            'https://github.com/tensorflow/models/blob/master/official/projects/movinet/files/'
            'kinetics_600_labels.txt',),
        accuracy={'top-1': top[0], 'top-5': top[1]}, accuracy_page=_MOVINET,
        protocol='50 frames at 5 fps, one crop', parameters=parameters, gflops=gflops)


MODEL_ZOO: tuple[ZooEntry, ...] = (
    _torchvision(
        'swin3d_t', 'swin3d_t-7615ae03', (28_158_070, 175.53, 43.882, 16, 121.543),
        (77.715, 93.519), '32 frames at 15 fps, 224 x 224', _VIDEO_SWIN_PAPER,
        f'{_KINETICS}: a first model; it can be exported, and is the start of students'),
    _torchvision(
        'swin3d_s', 'swin3d_s-da41c237', (49_816_678, 331.36, 82.841, 16, 218.288),
        (79.521, 94.158), '32 frames at 15 fps, 224 x 224', _VIDEO_SWIN_PAPER,
        f'{_KINETICS}, where a GPU is available'),
    _torchvision(
        'swin3d_b', 'swin3d_b_1k-24f7c7c6', (88_048_984, 562.67, 140.667, 16, 364.134),
        (79.427, 94.386), '32 frames at 15 fps, 224 x 224', _VIDEO_SWIN_PAPER,
        f'{_KINETICS}; swin3d_b_22k costs the same and is better'),
    _torchvision(
        'swin3d_b_22k', 'swin3d_b_22k-7c6ae6fa', (88_048_984, 562.67, 140.667, 16, 364.134),
        (81.643, 95.574), '32 frames at 15 fps, 224 x 224', _VIDEO_SWIN_PAPER,
        f'{_KINETICS}: the best of these; the start of a teacher', 'KINETICS400_IMAGENET22K_V1'),
    _torchvision(
        'mvit_v1_b', 'mvit_v1_b-dbeb1030', (36_610_672, 141.20, 70.599, 16, 139.764),
        (78.477, 93.582), '16 frames at 7.5 fps, 224 x 224', 'https://arxiv.org/abs/2104.11227',
        f'{_KINETICS}; mvit_v2_s costs less and is better'),
    _torchvision(
        'mvit_v2_s', 'mvit_v2_s-ae3be167', (34_537_744, 128.45, 64.224, 16, 131.884),
        (80.757, 94.665), '16 frames at 7.5 fps, 224 x 224', 'https://arxiv.org/abs/2112.01526',
        f'{_KINETICS}: most accurate for its cost; with PyTorch only'),
    _torchvision(
        's3d', 's3d-d76dad2f', (8_320_048, 287.65, 17.979, 16, 31.972), (68.368, 88.05),
        '128 frames at 15 fps, 224 x 224', 'https://arxiv.org/abs/1712.04851',
        f'{_KINETICS} that last long: a window has 8.5 s; the smallest file'),
    _torchvision(
        'r2plus1d_18', 'r2plus1d_18-91a641e6', (31_505_325, 81.04, 40.519, 16, 120.318),
        (67.463, 86.175), '16 frames at 15 fps, 112 x 112', _TRAN_PAPER,
        f'{_KINETICS}: least operations; a window has 1.1 s'),
    _torchvision(
        'mc3_18', 'mc3_18-a90a0ba3', (11_695_440, 86.69, 43.343, 16, 44.672), (63.96, 84.13),
        '16 frames at 15 fps, 112 x 112', _TRAN_PAPER,
        f'{_KINETICS}: a small file; r2plus1d_18 is better'),
    _torchvision(
        'r3d_18', 'r3d_18-b3b3357e', (33_371_472, 81.39, 40.697, 16, 127.359), (63.2, 83.479),
        '16 frames at 15 fps, 112 x 112', _TRAN_PAPER,
        f'{_KINETICS}: a plain 3-D ResNet to compare with'),
    _x3d('x3d_s', 'X3D_S', '13 frames at 5 fps, 160 x 160', {'top-1': 73.33, 'top-5': 91.27},
         3.93, (1.96, 13), '10 clips of a video in 3 crops of 182 x 182',
         ': least operations of a clip; it can be exported'),
    _x3d('x3d_m', 'X3D_M', '16 frames at 6 fps, 224 x 224', {'top-1': 75.94, 'top-5': 92.72},
         9.46, (4.73, 16), '10 clips of a video in 3 crops of 256 x 256',
         ': accurate for its cost; it can be exported'),
    _x3d('cox3d_s', 'X3D_S', '64 frames at 5 fps, 160 x 160', {'top-1': 67.33}, 19.35, (0.0, 0),
         'one frame of a stream, a mean of 64 frames',
         ', frame by frame: X3D-S on a stream, 0.30 GFLOPs a frame, 5.6 s late'),
    _x3d('cox3d_m', 'X3D_M', '64 frames at 6 fps, 224 x 224', {'top-1': 71.03}, 37.79, (0.0, 0),
         'one frame of a stream, a mean of 64 frames',
         ', frame by frame: X3D-M on a stream, 0.59 GFLOPs a frame, 4.7 s late'),
    _movinet('a0', 172, (72.05, 90.63), 3_748_031, 4.85,
             'frame by frame: least operations, 0.10 GFLOPs a frame'),
    _movinet('a2', 224, (78.40, 94.05), 7_326_962, 21.14,
             'frame by frame: accurate on a stream, 0.42 GFLOPs a frame'),
    ZooEntry(
        'video_swin_b_ssv2', _VIDEO_SWIN, 'Apache-2.0', 'Something-Something V2',
        {'action': 174}, '32 frames of a whole video, 224 x 224',
        'motions of hands with any object, such as pushing something from left to right',
        _VIDEO_SWIN_PAPER, 'video-swin:swin_base_patch244_window1677_sthv2',
        url='https://github.com/SwinTransformer/storage/releases/download/v1.0.4/'
            'swin_base_patch244_window1677_sthv2.pth',
        class_files=_SOMETHING_CLASSES, accuracy={'top-1': 69.6, 'top-5': 92.7},
        accuracy_page=_VIDEO_SWIN, protocol='3 crops of 32 frames', parameters=88_834_038,
        gflops=640.71, published_gmacs=320.6, published_frames=32),
    ZooEntry(
        'omnivore_swinB_epic', _OMNIVORE, 'CC BY-NC 4.0', 'Epic-Kitchens-100',
        {'verb': 97, 'noun': 300}, '32 frames in 2 s, 224 x 224',
        'kitchens seen from the head of a person, as verb and noun',
        'https://arxiv.org/abs/2201.08377', 'omnivore:swinB_epic',
        url='https://dl.fbaipublicfiles.com/omnivore/models/swinB_epic_checkpoint.torch',
        class_files=('https://dl.fbaipublicfiles.com/omnivore/epic_action_classes.csv',
                     *_EPIC_CLASSES),
        commercial_use=False, parameters=92_556_838, gflops=640.72),
    _radevski(
        'radevski_epic', 'Epic-Kitchens-100', {'verb': 97, 'noun': 300},
        '1KUBiwGodTLqtuoRoxJVbpwBZ8uieJCtm', _EPIC_CLASSES,
        'kitchens seen from the head of a person, as verb and noun'),
    _radevski(
        'radevski_ssv2', 'Something-Something V2', {'action': 174},
        '1qAZTKYjt-D2Y95BlTsjw2Ny9YWMWGnQC', _SOMETHING_CLASSES,
        'motions of hands with any object'),
    _radevski(
        'radevski_something_else', 'Something-Else', {'action': 174},
        '1zK_dEGJP21xtgrZgc_gOPBPvWg-DKL2j', _SOMETHING_ELSE_CLASSES,
        'motions of hands with objects that were not seen in training'),
    ZooEntry(
        'ast_audioset', 'https://github.com/YuanGongND/ast', 'BSD-3-Clause', 'AudioSet',
        {'audio_event': 527}, 'audio of 10 s at 16 kHz, 128 mel bands',
        'audio events such as water, chopping or speech; the start of an audio encoder',
        'https://arxiv.org/abs/2104.01778', 'ast:audioset_0.4593',
        url='https://www.dropbox.com/s/cv4knew8mvbrnvq/audioset_0.4593.pth?dl=1',
        class_files=('https://github.com/YuanGongND/ast/blob/master/egs/audioset/data/'
                     'class_labels_indices.csv',),
        modalities=('audio',), accuracy={'mAP': 45.93},
        accuracy_page='https://github.com/YuanGongND/ast',
        protocol='mean average precision, weights averaged', parameters=86_594_063,
        gflops=261.03),
    ZooEntry(
        'stlt_ssv2', _STLT, _STLT_LICENCE, 'Something-Something V2', {'action': 174},
        _STLT_CLIP, 'motions of hands from boxes alone', _STLT_PAPER, 'stlt:FILE',
        class_files=_SOMETHING_CLASSES, modalities=('detections',)),
    ZooEntry(
        'stlt_something_else', _STLT, _STLT_LICENCE, 'Something-Else', {'action': 174},
        _STLT_CLIP, 'motions of hands with objects that were not seen in training, from boxes '
        'alone', _STLT_PAPER, 'stlt:FILE', class_files=_SOMETHING_ELSE_CLASSES,
        modalities=('detections',)),
    _lavila('lavila_tsf_b_epic', 'base.ft_ek100_cls.ep_0100.md5sum_4e3575', (69.0, 58.4),
            114_483_853, 739.18, 'as verb and noun, by TimeSformer-B'),
    _lavila('lavila_tsf_l_epic', 'large.ft_ek100_cls.ep_0090.md5sum_4a2509', (72.0, 62.9),
            404_413_837, 3415.41, 'as verb and noun: most accurate, by TimeSformer-L'),
)
"""The most useful first, by source."""


def zoo_entry(name: str, setting: str = 'NAME') -> ZooEntry:
    """
    Return the entry of a name.

    :param setting: what the user set to this name.
    :raises InvalidSettingError: when there is none; it lists the names.

    >>> from karmma_ros.model.model_zoo import zoo_entry
    >>> zoo_entry('swin3d_t').classes
    {'action': 400}
    """
    for entry in MODEL_ZOO:
        if entry.name == name:
            return entry
    raise InvalidSettingError(
        setting, name, ', '.join(entry.name for entry in MODEL_ZOO),
        '`karmma model list` describes them')


def classes_text(entry: ZooEntry) -> str:
    """Return the number of classes of each head on one line."""
    return ', '.join(f'{size} {head}' for head, size in entry.classes.items())


def accuracy_text(entry: ZooEntry) -> str:
    """Return the published accuracy on one line."""
    return ', '.join(f'{name} {value:g}' for name, value in entry.accuracy.items()) or 'not stated'
