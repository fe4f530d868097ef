"""The digest of a split: what changes its clips changes it, what does not leaves it."""

from dataclasses import replace
import os
from pathlib import Path

from karmma_ros.clip import ClipSpec
from karmma_ros.data.datasets import clips_digest, DataSettings
from karmma_ros.data.segments import LabelledSegment, SegmentDataset
from karmma_ros.data.synthetic_kitchen.dataset import KitchenSettings, LiveKitchen
from karmma_ros.data.synthetic_kitchen.episode import clip_spec
from karmma_ros.data.synthetic_kitchen.vocabulary import Split
from karmma_ros.media import AudioFile, FrameFolder
from karmma_ros.media.sources import FlowFromVideo
from karmma_ros.modality import Modality
import pytest


@pytest.fixture
def folder(tmp_path):
    frames = tmp_path / 'frames'
    frames.mkdir()
    for number in range(1, 4):
        (frames / f'{number}.jpg').write_bytes(b'picture')
    (tmp_path / 'audio.wav').write_bytes(b'audio')
    return tmp_path


def segment(folder, **fields):
    frames = FrameFolder(folder / 'frames', 30.0)
    sources = {Modality.RGB: frames, Modality.FLOW: FlowFromVideo(frames),
               Modality.AUDIO: AudioFile(folder / 'audio.wav')}
    return LabelledSegment(
        **{
            'name': 'a',
            'start_s': 0.0,
            'stop_s': 2.0,
            'labels': {'verb': 1, 'noun': 2},
            'sources': sources,
            **fields,
        }
    )


def digest(*segments, spec=None, seed=0):
    return clips_digest(SegmentDataset(segments, spec or ClipSpec(), seed), DataSettings())


def test_the_same_clips_have_the_same_digest(folder, monkeypatch):
    first = digest(segment(folder))
    assert digest(segment(folder)) == first
    assert digest(segment(folder), seed=5) == first
    assert digest(segment(folder, labels={'noun': 2, 'verb': 1})) == first
    assert digest(segment(folder / '..' / folder.name)) == first
    (folder.parent / 'link').symlink_to(folder)
    assert digest(segment(folder.parent / 'link')) == first
    monkeypatch.chdir(folder)
    assert digest(segment(Path())) == first


def test_other_labels_times_sources_or_clips_have_another(folder):
    first = segment(folder)
    without = {m: s for m, s in first.sources.items() if m is not Modality.FLOW}
    faster = {**first.sources, Modality.RGB: FrameFolder(folder / 'frames', 25.0)}
    digests = [
        digest(first), digest(first, first), digest(replace(first, name='b')),
        digest(replace(first, start_s=0.5)), digest(replace(first, stop_s=1.5)),
        digest(replace(first, labels={'verb': 2, 'noun': 1})),
        digest(replace(first, sources=without)), digest(replace(first, sources=faster)),
        digest(first, spec=replace(ClipSpec(), duration=1.5))]
    assert len(set(digests)) == len(digests)


@pytest.mark.parametrize('name', ['frames/2.jpg', 'audio.wav'])
def test_a_file_that_was_modified_has_another(folder, name):
    before, path = digest(segment(folder)), folder / name
    status = path.stat()
    path.write_bytes(path.read_bytes()[::-1])
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert (path.stat().st_size, path.stat().st_mtime_ns) == (status.st_size, status.st_mtime_ns)
    changed = digest(segment(folder))
    path.unlink()
    assert len({before, changed, digest(segment(folder))}) == 3


def test_another_file_of_a_folder_has_another(folder):
    before = digest(segment(folder))
    (folder / 'frames' / '4.jpg').write_bytes(b'')
    more = digest(segment(folder))
    (folder / 'frames' / '4.jpg').rename(folder / 'frames' / '5.jpg')
    assert len({before, more, digest(segment(folder))}) == 3


def test_what_is_rendered_is_known_by_its_settings(monkeypatch):
    clips = LiveKitchen(Split.TEST, 5, 0, clip_spec())

    def kitchen(**fields):
        return clips_digest(clips, DataSettings(synthetic_kitchen=KitchenSettings(**fields)))
    first = kitchen()
    assert kitchen() == first
    assert len({first, kitchen(seed=1), kitchen(test=5), kitchen(domain='garage')}) == 4
    monkeypatch.setattr('karmma_ros.data.datasets.VERSION', 0)
    assert kitchen() != first
