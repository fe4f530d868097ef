"""Read hostile files, each in a process of its own; send some to a live node."""

from __future__ import annotations

import array
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
import json
import os
from pathlib import Path
import signal
import subprocess
import sys
from tempfile import TemporaryDirectory
from threading import Thread
import time
from typing import Any

from rclpy.qos import qos_profile_sensor_data
from sensor_msgs.msg import CompressedImage

from fault_suite import hostile_inputs as inputs
from fault_suite.case import case, Trial
from fault_suite.messages import header
from fault_suite.models import make_model
from fault_suite.monitor import node_monitor, NodeMonitor
from fault_suite.proc import MEBI, peak_bytes
from fault_suite.processes import node_process, ROOT, sender_process, SUITE
from fault_suite.ros import domain

MEMORY_MIB = 1024
_KARMMA = ('-c', 'import sys; from karmma_ros.cli.main import main; sys.exit(main())')
_MODEL = ROOT / 'models' / 'synthetic_kitchen'


@dataclass(frozen=True)
class Ended:
    """How a process ended."""

    status: int
    """Exit status; negative: the signal that ended it, -9 after the time limit."""
    output: str
    seconds: float
    peak_mib: float

    @property
    def bounded(self) -> bool:
        """Whether it ended by itself, within its memory and without a traceback."""
        return (self.status >= 0 and self.peak_mib < MEMORY_MIB
                and 'Traceback' not in self.output)

    def __str__(self) -> str:
        last = next((line for line in reversed(self.output.splitlines()) if line.strip()), '')
        return f'{last[:160]} (exit {self.status}, {self.seconds:.1f} s, {self.peak_mib:.0f} MiB)'


def run_python(arguments: Sequence[str], folder: Path, limit_s: float) -> Ended:
    """Run Python with these arguments; it is killed with its children after the limit."""
    temporary, log = folder / 'tmp', folder / 'output'
    temporary.mkdir(exist_ok=True)
    started = time.monotonic()
    with log.open('wb') as output:
        child = subprocess.Popen(
            [sys.executable, *arguments], stdin=subprocess.DEVNULL, stdout=output,
            stderr=subprocess.STDOUT, cwd=ROOT, start_new_session=True,
            env={**os.environ, 'TMPDIR': str(temporary), 'COLUMNS': '400', 'PYTHONPATH':
                 os.pathsep.join([str(SUITE), str(ROOT), os.environ.get('PYTHONPATH', '')])})
    peak = 0
    while child.poll() is None and time.monotonic() < started + limit_s:
        # Not ru_maxrss, which counts what this process had when it forked.
        peak = max(peak, _peak_bytes(child.pid))
        time.sleep(0.02)
    if child.poll() is None:
        os.killpg(child.pid, signal.SIGKILL)
    # Temporary paths are not part of the report.
    text = log.read_text(errors='replace').replace(str(folder), '…')
    return Ended(child.wait(), text, time.monotonic() - started, peak / MEBI)


def _peak_bytes(pid: int) -> int:
    try:
        return peak_bytes(pid)
    except OSError:  # it has ended meanwhile
        return 0


def _bags(trial: Trial, folder: Path, limit_s: float) -> None:
    """Evaluate all hostile bags and a valid one by one command."""
    good, out = folder / 'good.mcap', folder / 'report'
    written = run_python([*_KARMMA, 'bag', 'synthetic', str(good), '--episodes', '1'], folder, 60)
    trial.require('a valid bag is written too', good.exists(), written)
    paths = []
    for name, make in inputs.BAGS.values():
        make(folder / name)
        paths.append(str(folder / name))
    ended = run_python([*_KARMMA, 'bag', 'evaluate', *paths, str(good), '--model', str(_MODEL),
                        '--out', str(out)], folder, limit_s)
    trial.figures['bags'] = {'seconds': round(ended.seconds, 1),
                             'peak_mib': round(ended.peak_mib)}
    trial.require(f'{len(paths)} bags and a valid one, one command: ends with exit status 1 in '
                  f'{limit_s:g} s and {MEMORY_MIB} MiB, without a traceback',
                  ended.bounded and ended.status == 1, ended)
    for what, (name, _) in inputs.BAGS.items():
        line = next((line for line in ended.output.splitlines() if f'/{name}' in line), '')
        trial.require(f'{what}: named with the reason', line,
                      line.strip()[:200] or 'not named')
    report = out / 'report.json'
    bags = json.loads(report.read_text())['bags'] if report.exists() else []
    windows = [bag.get('windows', 1) for bag in bags if 'good' in bag.get('name', bag['path'])]
    trial.require('the valid bag is evaluated', windows and windows[0] > 0,
                  f'{len(bags)} bags in the report')
    left = [path.name for path in (folder / 'tmp').iterdir()
            if not path.name.startswith('torchinductor')]  # torch makes its cache there
    trial.require('no temporary file stays', not left, ', '.join(left) or 'none')


def _reads(trial: Trial, folder: Path) -> None:
    """Read hostile images, archives, videos and checkpoints, each in its process."""
    for file_type, files in (('image', inputs.IMAGES), ('tar', inputs.TARS)):
        for what, make in files.items():
            path = folder / f'hostile.{file_type}'
            path.write_bytes(make())
            _require_rejected(trial, what, run_python(
                ['-m', 'fault_suite.reading', file_type, str(path)], folder, 30))
    witness, checkpoint = folder / 'ran', folder / 'last.ckpt'
    checkpoint.write_bytes(inputs.pickled_code(witness))
    ended = run_python(['-m', 'fault_suite.reading', 'checkpoint', str(checkpoint)], folder, 30)
    _require_rejected(trial, 'a checkpoint that runs code', ended)
    trial.require('its code was not run', not witness.exists(), 'no trace of it')
    with _server() as (address, requests):
        for what, path in _video_paths(folder, address).items():
            _require_rejected(trial, what, run_python(
                ['-m', 'fault_suite.reading', 'video', path], folder, 30))
        trial.require('no request was made', not requests, f'{len(requests)} requests')


def _require_rejected(trial: Trial, what: str, ended: Ended) -> None:
    trial.require(f'{what}: rejected, or known to be truncated, in 30 s and {MEMORY_MIB} MiB',
                  ended.bounded and ('rejected: ' in ended.output
                                    or 'breaks_off=True' in ended.output), ended)


def _video_paths(folder: Path, address: str) -> dict[str, str]:
    playlist, concat = folder / 'playlist.mp4', folder / 'concat.mp4'
    playlist.write_text('#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n'
                        f'{address}/segment.ts\n#EXT-X-ENDLIST\n')
    concat.write_text(f"ffconcat version 1.0\nfile '{address}/part.mp4'\n")
    return {'a video whose path is a URL': f'{address}/video.mp4',
            'a playlist of URLs named .mp4': str(playlist),
            'a list of URLs to join named .mp4': str(concat)}


@contextmanager
def _server() -> Iterator[tuple[str, list[str]]]:
    """Serve on the loopback interface; yield the address and the paths that were requested."""
    requests: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            requests.append(self.path)
            self.send_error(404)

        def log_message(self, *arguments: Any) -> None:
            pass

    server = ThreadingHTTPServer(('127.0.0.1', 0), Handler)
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f'http://127.0.0.1:{server.server_port}', requests
    finally:
        server.shutdown()
        server.server_close()


GAP_S = 1.0
_RATE_HZ = 5


def _live(trial: Trial, folder: Path, seconds: float) -> None:
    """Send hostile images to a node that also receives audio and detections."""
    model = make_model(folder / 'random')
    with node_monitor() as monitor, sender_process() as sender:
        sender.switch('microphone', 'detector')
        publisher = monitor.node.create_publisher(
            CompressedImage, 'image/compressed', qos_profile_sensor_data)
        parameters = {'model': model, 'autostart': True, 'threads': 1,
                      'rgb.transport': 'compressed',
                      'detections.image_width': 96, 'detections.image_height': 72}
        with node_process(parameters) as node:
            if not trial.require('live: there are results from audio and detections',
                                 monitor.result_with('audio', 'detections', limit_s=60), 'yes'):
                return
            for what, make in inputs.IMAGES.items():
                _flood(trial, monitor, node.pid, what, _publishing(publisher, make()), seconds)


def _publishing(publisher: Any, data: bytes) -> Callable[[int], None]:
    message = CompressedImage(format='jpeg' if data[:2] == b'\xff\xd8' else 'png',
                              data=array.array('B', data))

    def publish(now_ns: int) -> None:
        message.header = header(now_ns, 'camera')
        publisher.publish(message)
    return publish


def _flood(trial: Trial, monitor: NodeMonitor, pid: int, what: str,
           publish: Callable[[int], None], seconds: float) -> None:
    """Publish an image several times a second; measure the longest time without a result."""
    started, first = time.monotonic(), len(monitor.results)
    while time.monotonic() < started + seconds:
        publish(monitor.node.get_clock().now().nanoseconds)
        monitor.spin(1 / _RATE_HZ)
    times = [started, *(received.time for received in monitor.results[first:]), time.monotonic()]
    gap = max(after - before for before, after in zip(times, times[1:]))
    peak = peak_bytes(pid) / MEBI
    trial.figures[f'live: {what}'] = {'gap_s': round(gap, 2), 'peak_mib': round(peak)}
    trial.require(
        f'live, {_RATE_HZ} a second for {seconds:g} s: {what}: results from the other sensors '
        f'continue (gap at most {GAP_S:g} s), the node stays below {MEMORY_MIB} MiB',
        gap <= GAP_S and peak < MEMORY_MIB, f'gap {gap:.2f} s, peak {peak:.0f} MiB')


@case('hostile_files', 'Hostile files', (
    'Bags, images, archives, checkpoints and videos that are small on disk and would take '
    'gigabytes, never end, run code or make requests are read by the package’s own commands and '
    'functions, with the peak memory of each process measured. The images are also sent to a live '
    'node ({live_s:g} s each) that receives audio and detections.'),
    full={'live_s': 8.0, 'bags_s': 240.0}, quick={'live_s': 4.0}, limit_s=900)
def run(trial: Trial, live_s: float, bags_s: float) -> None:
    """Read them all."""
    with TemporaryDirectory() as name:
        folder = Path(name)
        _bags(trial, folder, bags_s)
        _reads(trial, folder)
        with domain():
            _live(trial, folder, live_s)
