"""
What a data pack is made of: formats of shards and decoders of frames, measured side by side.

`python benchmarks/pack_formats.py` times what is installed of WebDataset and LitData on rows
of 0.6 MB, and of OpenCV, simplejpeg and PyAV on 32 frames of 224 x 224. Mosaic Streaming 0.13
cannot be installed beside this package: it wants numpy below 2.2 and transformers below 5.
Milliseconds are of processor time, medians of five rounds in turns.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from fractions import Fraction
from importlib import import_module
import io
from pathlib import Path
import random
import statistics
import tempfile
import time
from typing import Any

import cv2
import numpy as np

ROWS, ROW_BYTES, PER_SHARD, ROUNDS = 300, 600_000, 100, 5


def main() -> None:
    """Print both tables."""
    cv2.setNumThreads(1)
    with tempfile.TemporaryDirectory() as folder:
        show('ms a row', {**webdataset(Path(folder)), **litdata(Path(folder))}, ROWS)
    show('ms for 32 frames', decoders(), 1)


def show(unit: str, subjects: Mapping[str, Callable[[], Any]], count: int) -> None:
    """Time each in turns and print a table."""
    times: dict[str, list[float]] = {name: [] for name in subjects}
    for read in subjects.values():
        read()  # warm up
    for _ in range(ROUNDS):
        for name, read in subjects.items():
            began = time.process_time()
            read()
            times[name].append(1e3 * (time.process_time() - began) / count)
    print(f'| what | {unit} |\n|---|---:|')
    for name, each in times.items():
        print(f'| {name} | {statistics.median(each):.2f} |')
    print()


def library(name: str) -> Any:
    """Return a module; None without one that can be imported."""
    try:
        return import_module(name)
    except Exception as error:  # whatever its requirements do
        print(f'{name} is left out: {type(error).__name__}: {str(error).splitlines()[0]}')
        return None


def rows() -> list[bytes]:
    """Return rows of random bytes; JPEGs cannot be compressed either."""
    rng = np.random.default_rng(0)
    return [rng.bytes(ROW_BYTES) for _ in range(20)] * (ROWS // 20)


def order() -> list[int]:
    """Return the rows in random order."""
    return random.Random(0).sample(range(ROWS), ROWS)


def webdataset(folder: Path) -> dict[str, Callable[[], Any]]:
    """Return readers of tars."""
    wds = library('webdataset')
    if wds is None:
        return {}
    pattern = str(folder / 'wds-%05d.tar')
    with wds.ShardWriter(pattern, maxcount=PER_SHARD, verbose=0) as writer:
        for i, row in enumerate(rows()):
            writer.write({'__key__': f'{i:06d}', 'v.bin': row})
    paths = [pattern % i for i in range(ROWS // PER_SHARD)]
    return {'WebDataset, in sequence (no row by its number)': lambda: [
        len(row['v.bin']) for row in wds.WebDataset(paths, shardshuffle=False)]}


def litdata(folder: Path) -> dict[str, Callable[[], Any]]:
    """Return readers of LitData's chunks."""
    writers, reader = library('litdata.streaming.writer'), library('litdata')
    if reader is None:
        return {}
    writer = writers.BinaryWriter(str(folder / 'lit'), chunk_size=PER_SHARD)
    for i, row in enumerate(rows()):
        writer.add_item(i, {'v': row})
    writer.done()
    writer.merge()
    dataset = reader.StreamingDataset(str(folder / 'lit'), shuffle=False)
    return {'LitData, any row': lambda: [len(dataset[i]['v']) for i in order()]}


def decoders() -> dict[str, Callable[[], Any]]:
    """Return decoders of the same frames."""
    rng = np.random.default_rng(0)
    scene = cv2.resize(rng.integers(0, 255, (12, 21, 3), np.uint8), (456, 256),
                       interpolation=cv2.INTER_CUBIC)
    frames = [np.roll(scene, 2 * i, 1) for i in range(32)]
    full = [cv2.imencode('.jpg', frame, [cv2.IMWRITE_JPEG_QUALITY, 80])[1] for frame in frames]
    small = np.stack([cv2.resize(frame[:, 100:356], (224, 224), interpolation=cv2.INTER_AREA)
                      for frame in frames])
    quality = [cv2.IMWRITE_JPEG_QUALITY, 90]
    single = [cv2.imencode('.jpg', frame, quality)[1] for frame in small]
    tall = cv2.imencode('.jpg', small.reshape(-1, 224, 3), quality)[1]
    subjects: dict[str, Callable[[], Any]] = {
        'OpenCV, JPEGs of 456 x 256, resized': lambda: [
            cv2.resize(cv2.imdecode(each, cv2.IMREAD_COLOR_RGB)[:, 100:356], (224, 224),
                       interpolation=cv2.INTER_AREA) for each in full],
        'OpenCV, JPEGs of 224 x 224': lambda: np.stack([
            cv2.imdecode(each, cv2.IMREAD_COLOR_RGB) for each in single]),
        'OpenCV, one JPEG of all': lambda: cv2.imdecode(tall, cv2.IMREAD_COLOR_RGB)}
    simplejpeg = library('simplejpeg')
    if simplejpeg is not None:
        data = tall.tobytes()
        subjects['simplejpeg (libjpeg-turbo), one JPEG of all'] = (
            lambda: simplejpeg.decode_jpeg(data, 'RGB'))
    video = h264(small)
    subjects['PyAV, H.264, crf 18'] = lambda: decoded(video)
    return subjects


def h264(frames: np.ndarray) -> bytes:
    """Return frames as a video."""
    import av
    file = io.BytesIO()
    with av.open(file, 'w', format='mp4') as container:
        stream: Any = container.add_stream('libx264', rate=Fraction(16), options={'crf': '18'})
        stream.width, stream.height, stream.pix_fmt = 224, 224, 'yuv420p'
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format='bgr24')))
        container.mux(stream.encode())
    return file.getvalue()


def decoded(data: bytes) -> np.ndarray:
    """Return the frames of a video, by one thread."""
    import av
    with av.open(io.BytesIO(data)) as container:
        stream: Any = container.streams.video[0]
        stream.thread_type, stream.codec_context.thread_count = 'NONE', 1
        return np.stack([f.to_ndarray(format='rgb24') for f in container.decode(stream)])


if __name__ == '__main__':
    main()
