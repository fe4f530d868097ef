"""
Play camera, microphone and detector as a process of its own.

Reads lines from standard input, each naming the sensors that are to be on, and prints
for each the sensors and time.monotonic() of the change; ends with its input.
"""

import array
import random
import sys
from threading import Thread
import time

from audio_common_msgs.msg import AudioDataStamped
import rclpy
from rclpy.time import Time
from sensor_data import pixels, samples
from sensor_msgs.msg import Image
from vision_msgs.msg import Detection2D, Detection2DArray, ObjectHypothesisWithPose

PERIODS_NS = {'image': 50_000_000, 'audio': 20_000_000, 'detections': 100_000_000}
WIDTH, HEIGHT = 96, 72


class Sender:
    def __init__(self):
        self.node = rclpy.create_node('sender')
        self.on, self.ended = set(), False
        types = {'image': Image, 'audio': AudioDataStamped, 'detections': Detection2DArray}
        self.publishers = {
            name: self.node.create_publisher(each, name, 10) for name, each in types.items()}
        self.makers = {'image': self.image, 'audio': self.audio, 'detections': self.boxes}

    def run(self):
        Thread(target=self.listen, daemon=True).start()
        due_ns = dict.fromkeys(PERIODS_NS, self.now_ns())
        while not self.ended:
            now_ns = self.now_ns()
            for name, period_ns in PERIODS_NS.items():
                if now_ns >= due_ns[name]:
                    if name in self.on:
                        self.send(name, due_ns[name])
                    due_ns[name] += period_ns
            time.sleep(0.002)

    def now_ns(self):
        return self.node.get_clock().now().nanoseconds

    def listen(self):
        for line in sys.stdin:
            self.on = set(line.split())
            print(line.strip() or 'nothing', time.monotonic(), flush=True)
        self.ended = True

    def send(self, name, due_ns):
        """Send what was sensed when it was due, however late this process comes to it."""
        message = self.makers[name]()
        # Audio is stamped at its first sample, a period before the last.
        first_ns = due_ns - (PERIODS_NS[name] if name == 'audio' else 0)
        message.header.stamp = Time(nanoseconds=first_ns).to_msg()
        message.header.frame_id = f'{name}_frame'
        self.publishers[name].publish(message)

    def image(self):
        return Image(width=WIDTH, height=HEIGHT, step=3 * WIDTH, encoding='bgr8',
                     data=array.array('B', pixels(HEIGHT, WIDTH).tobytes()))

    def audio(self):
        message = AudioDataStamped()
        message.audio.data = array.array('B', samples(320).tobytes())
        return message

    def boxes(self):
        box = Detection2D(results=[ObjectHypothesisWithPose()])
        box.results[0].hypothesis.class_id = 'hand'
        box.bbox.center.position.x, box.bbox.center.position.y = random.uniform(40, 41), 30.0
        box.bbox.size_x, box.bbox.size_y = 20.0, 10.0
        return Detection2DArray(detections=[box])


if __name__ == '__main__':
    rclpy.init()
    Sender().run()
