"""All sensors for a quarter of an hour, in real time, as on a robot."""

from __future__ import annotations

from dataclasses import dataclass, field
import os
from pathlib import Path
import time
from typing import Any

import numpy as np

from fault_suite.case import case, Trial
from fault_suite.monitor import node_monitor, NodeMonitor
from fault_suite.proc import MEBI, rise, usage
from fault_suite.processes import ALL, CONFIG, node_process, NodeProcess, sender_process
from fault_suite.ros import domain

CAMERA = {'name': 'camera', 'message': 'image', 'topic': 'image', 'rate': 30, 'reliable': False,
          'fields': {'width': 640, 'height': 480}}
MICROPHONE = {'name': 'microphone', 'message': 'audio', 'topic': 'audio', 'rate': 50,
              'fields': {'samples': 320}}
DETECTOR = {'name': 'detector', 'message': 'boxes', 'topic': 'detections', 'rate': 10,
            'fields': {'centres_and_sizes': [[320, 240, 80, 60], [100, 100, 40, 40]]}}
RATE_HZ = 5.0
FIGURE = Path('images', 'reliability_soak.png')
IMAGES_DROPPED, AGE_P95_S, GAP_S = 0.05, 0.5, 2.0


@dataclass
class Samples:
    """What was measured each second."""

    time_s: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    """Cores in use."""
    rss: list[int] = field(default_factory=list)
    camera_hz: list[float] = field(default_factory=list)
    audio_missing: list[int] = field(default_factory=list)
    """Samples missing in the window."""


def _watch(monitor: NodeMonitor, node: NodeProcess, seconds: float) -> Samples:
    """Measure the node each second while receiving its messages."""
    samples, started, last = Samples(), time.monotonic(), usage(node.pid)
    then = started
    while time.monotonic() - started < seconds and node.alive:
        monitor.spin(1.0)
        now, current = time.monotonic(), usage(node.pid)
        samples.time_s.append(now - started)
        samples.cpu.append((current.cpu_s - last.cpu_s) / (now - then))
        samples.rss.append(current.rss)
        then, last = now, current
        if monitor.availabilities:
            by_name = {s.name: s for s in monitor.availabilities[-1].message.modalities}
            samples.camera_hz.append(by_name['rgb'].rate)
            samples.audio_missing.append(_missing(by_name['audio'], monitor))
        del monitor.availabilities[:-1], monitor.diagnostics[:-1]
    return samples


def _missing(status: Any, monitor: NodeMonitor) -> int:
    info = monitor.infos[-1].message
    return round(info.window_duration * info.audio_sample_rate) - status.num_samples


def _check_memory(trial: Trial, samples: Samples) -> None:
    warm = len(samples.rss) // 5
    grown, level = rise(samples.rss[warm:]), samples.rss[warm]
    trial.require('after the first fifth memory is constant: a line fitted to it rises by less '
                  'than 2 %',
                  grown < 0.02 * level, f'{grown / MEBI:+.2f} MiB of {level / MEBI:.0f} MiB')
    trial.figures.update(
        rss_mib=round(level / MEBI, 1), grown_mib=round(grown / MEBI, 2),
        cpu_cores_mean=round(float(np.mean(samples.cpu)), 3),
        cpu_cores_p95=round(float(np.percentile(samples.cpu, 95)), 3))


def _check_results(trial: Trial, monitor: NodeMonitor, seconds: float) -> None:
    times = [h.time for h in monitor.results]
    gap = max((b - a for a, b in zip(times, times[1:])), default=seconds)
    trial.require(f'results throughout: never more than {GAP_S:g} s between two', gap < GAP_S,
                  f'{len(times)} results, longest pause {gap:.2f} s')
    fraction = len(times) / (seconds * RATE_HZ)
    trial.require('at least 9 of 10 results due', fraction > 0.9, f'{fraction:.1%}')
    ages = np.array([h.message.end_to_end_latency for h in monitor.results])
    p50, p95, worst = (float(np.percentile(ages, q)) for q in (50, 95, 100))
    trial.require(f'age of a result, from its newest sample to publishing: p95 below '
                  f'{AGE_P95_S:g} s', p95 < AGE_P95_S and ages.min() >= 0,
                  f'p50 {p50:.3f} s, p95 {p95:.3f} s, largest {worst:.3f} s')
    missing = sorted({s.name for h in monitor.results[20:] for s in h.message.modalities
                      if not s.used})
    trial.require('every result but the first twenty uses all four inputs', not missing,
                  f'missing at some time: {", ".join(missing) or "none"}')
    trial.figures.update(age_p50_s=round(p50, 4), age_p95_s=round(p95, 4),
                         age_max_s=round(worst, 4), results=len(times))


def _check_inputs(trial: Trial, samples: Samples, sent_hz: float) -> None:
    warm = len(samples.camera_hz) // 20 + 3
    dropped = max(0.0, 1 - float(np.mean(samples.camera_hz[warm:])) / sent_hz)
    trial.require(f'fewer than {IMAGES_DROPPED:.0%} of the images are dropped',
                  dropped < IMAGES_DROPPED,
                  f'{dropped:.2%} of {sent_hz:.1f} a second')
    # The newest audio is as old as its chunk when the window ends with a newer image.
    gaps = np.array(samples.audio_missing[warm:])
    trial.require('99 of 100 windows have all of their audio but the last 0.1 s',
                  np.mean(gaps <= 1600) > 0.99, f'{np.mean(gaps <= 1600):.1%}; 95 of 100 miss at '
                  f'most {np.percentile(gaps, 95) / 16:.0f} ms')
    trial.figures.update(images_dropped=round(dropped, 5), camera_hz=round(sent_hz, 2))


def _draw(samples: Samples, path: Path, title: str) -> None:
    """Draw CPU and memory over time."""
    import matplotlib
    matplotlib.use('Agg')
    from matplotlib import pyplot
    figure, (above, below) = pyplot.subplots(2, 1, sharex=True, figsize=(8, 4.5))
    minutes = np.array(samples.time_s) / 60
    above.plot(minutes, np.array(samples.cpu) * 100, color='#4c78a8', linewidth=0.7)
    above.set_ylabel('CPU, % of a core')
    above.set_ylim(bottom=0)
    below.plot(minutes, np.array(samples.rss) / MEBI, color='#e45756', linewidth=1.2)
    below.set_ylabel('resident memory, MiB')
    below.set_ylim(0, max(samples.rss) / MEBI * 1.15)
    below.set_xlabel('minutes')
    above.set_title(title, fontsize=10, loc='left')
    for axes in (above, below):
        axes.spines[['top', 'right']].set_visible(False)
        axes.grid(alpha=0.25)
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)
    pyplot.close(figure)


def _profile() -> dict[str, str]:
    """Return the variables that make Fast DDS use the profile that is included."""
    profile = str(CONFIG / 'fastdds.xml')
    return {'FASTRTPS_DEFAULT_PROFILES_FILE': profile, 'FASTDDS_DEFAULT_PROFILES_FILE': profile}


@case('soak', 'Soak test in real time', (
    'Real time, {minutes:g} minutes: images of 640 x 480 at 30 Hz (best effort, as drivers send), '
    'audio of 16 kHz in chunks of 20 ms, boxes at 10 Hz, sent by one process to the node '
    'in another, both with config/node/fastdds.xml; the included model at {rate:g} results a '
    'second and the node’s defaults otherwise. CPU and memory of the node are measured each '
    'second.'),
    full={'minutes': 15.0, 'rate': RATE_HZ}, quick={'minutes': 0.3}, limit_s=1200)
def run(trial: Trial, minutes: float, rate: float, figure_folder: str = '') -> None:
    """Run the node with all sensors."""
    os.environ.update(_profile())
    figure_folder = figure_folder or os.environ.get('KARMMA_FAULTS_OUT', '')
    with domain(check_fields=False), node_monitor() as monitor, \
            sender_process((CAMERA, MICROPHONE, DETECTOR)) as sender:
        with node_process({'autostart': True, 'rate': rate}) as node:
            monitor.spin_until(lambda: monitor.infos and monitor.availabilities, 60)
            began = sender.switch(*ALL)
            monitor.result(30)
            monitor.results.clear()
            samples = _watch(monitor, node, minutes * 60)
            ended = sender.switch()
            status = node.end()
    trial.require('it ends with exit 0', status == 0, f'exit {status}')
    _check_results(trial, monitor, samples.time_s[-1])
    _check_inputs(trial, samples, sender.sent['camera'] / (ended - began))
    _check_memory(trial, samples)
    if figure_folder:
        _draw(samples, Path(figure_folder, FIGURE),
              f'The node over {minutes:g} minutes: VGA at 30 Hz, audio, boxes; {rate:g} results '
              'a second')
