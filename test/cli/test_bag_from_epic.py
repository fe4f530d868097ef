"""A video in the layout of EPIC-KITCHENS-100 becomes a bag with all that is published of it."""

import csv

import cv2
from karmma_ros.bags.reader import Bag
from karmma_ros.cli.bag import write
from karmma_ros.errors import InvalidSettingError
import numpy as np
import pytest
import soundfile

VIDEO, SECONDS = 'P01_02', 1.5
COLUMNS = ('narration_id', 'video_id', 'start_timestamp', 'stop_timestamp', 'verb_class',
           'noun_class')


@pytest.fixture(scope='module')
def root(tmp_path_factory):
    """Return 1.5 s of a video at 60 frames a second, whose flow is 2.0 pixels to the right."""
    root = tmp_path_factory.mktemp('epic')
    frames = root / 'P01' / 'rgb_frames' / VIDEO
    flows = root / 'P01' / 'flow_frames' / VIDEO
    for folder in (frames, flows / 'u', flows / 'v'):
        folder.mkdir(parents=True)
    for number in range(1, 91):
        frame = np.full((32, 48, 3), (number, 0, 200), np.uint8)
        cv2.imwrite(str(frames / f'frame_{number:010d}.jpg'), frame)
        for part, value in (('u', 160), ('v', 128)):
            cv2.imwrite(str(flows / part / f'frame_{number:010d}.jpg'),
                        np.full((32, 48), value, np.uint8))
    soundfile.write(root / f'{VIDEO}.wav', np.zeros(round(SECONDS * 24_000)), 24_000)
    _write_tables(root)
    return root


def _write_tables(root):
    with open(root / 'EPIC_100_train.csv', 'w', newline='') as file:
        table = csv.writer(file)
        table.writerow(COLUMNS)
        table.writerow([f'{VIDEO}_0', VIDEO, '00:00:00.20', '00:00:01.00', 3, 7])
        table.writerow(['P01_01_0', 'P01_01', '00:00:00.00', '00:00:09.00', 1, 1])
    for head, count in (('verb', 97), ('noun', 300)):
        with open(root / f'EPIC_100_{head}_classes.csv', 'w', newline='') as file:
            table = csv.writer(file)
            table.writerow(['id', 'key'])
            table.writerows([i, f'{head} {i}'] for i in range(count))


def written(root, out, *words):
    assert write.from_epic([VIDEO, str(out), '--root', str(root), '--annotations', str(root),
                           '--audio', str(root), *words]) == 0
    messages = {}
    with Bag(out) as bag:
        for message in bag.messages(list(bag.topics.values())):
            read = bag.reader(message.topic)
            messages.setdefault(message.topic.name, []).append(
                (message.received_ns - write.START_NS, read(message.data)))
    return messages


def test_frames_flow_audio_and_ground_truth(root, tmp_path):
    messages = written(root, tmp_path / 'out.mcap', '--stop', '1.5')
    assert {topic: len(each) for topic, each in messages.items()} == {
        '/ground_truth': 1, '/image': 45, '/flow': 45, '/audio': 48}
    truth = messages['/ground_truth'][0][1]
    assert (truth.verb_id, truth.verb, truth.noun) == (3, 'verb 3', 'noun 7')
    assert (truth.header.stamp.nanosec, truth.end.sec - truth.header.stamp.sec) == (
        200_000_000, 1)
    image = messages['/image'][30][1]
    assert (image.width, image.height, image.encoding) == (48, 32, 'rgb8')
    red, _, blue = image.data.reshape(32, 48, 3)[10, 10]
    assert red > 150 and blue == pytest.approx(60, abs=4)  # frame floor(1.0 · 60), BGR above


def test_flow_is_the_movement_from_message_to_message(root, tmp_path):
    messages = written(root, tmp_path / 'out.mcap', '--stop', '1')
    message = messages['/flow'][5][1]
    assert message.encoding == '32FC2'
    field = message.data.view('<f4').reshape(32, 48, 2)
    # 32 steps of 8 / 127.5 pixels in 50 ms; messages are 33.3 ms apart.
    assert field[..., 0] == pytest.approx(32 * 8 / 127.5 * (1 / 30) / 0.05, abs=0.1)
    assert field[..., 1] == pytest.approx(0, abs=0.1)


def test_a_part_of_the_video_starts_at_the_bags_start(root, tmp_path):
    messages = written(root, tmp_path / 'out.mcap', '--start', '0.5', '--stop', '1.2',
                    '--flow', 'none', '--rate', '10')
    assert '/flow' not in messages
    assert [round(time_ns / 1e9, 3) for time_ns, _ in messages['/image']] == [
        0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6]
    truth = messages['/ground_truth'][0][1]
    assert truth.end.nanosec == 500_000_000


@pytest.mark.parametrize(('words', 'sentence'), [
    (['--start', '9'], '--start'), (['--rate', '90'], 'rate of the released frames')])
def test_impossible_numbers_are_refused(root, tmp_path, words, sentence):
    with pytest.raises(InvalidSettingError, match=sentence):
        written(root, tmp_path / 'out.mcap', *words)


def test_a_video_without_annotations_is_a_sentence(root, tmp_path):
    with pytest.raises(InvalidSettingError, match="VIDEO_ID is 'P09_09'"):
        write.from_epic(['P09_09', str(tmp_path / 'o.mcap'), '--root', str(root),
                        '--annotations', str(root)])
