"""Tasks of the tests of the engine: the workers import them, so they are no part of a test."""

import os
from pathlib import Path
import signal
import time

from karmma_ros.bags import parallel
from karmma_ros.errors import BagError, KarmmaError

_evaluate = parallel._evaluate


def no_setup():
    return {'calls': 0}


def failing_setup():
    raise KarmmaError('the model is broken')


def exiting_setup():
    os._exit(1)


def square(state, task, report):
    """Return the square, the process, and which call of the worker this is."""
    state['calls'] += 1
    time.sleep(0.5)
    return task ** 2, os.getpid(), state['calls']


def node(state, task, report):
    import ray

    time.sleep(task)
    return ray.get_runtime_context().get_node_id(), os.environ.get('CUDA_VISIBLE_DEVICES', '')


def slow(state, task, report):
    """Write the number of a task to a log as it begins and as it ends, and take its time."""
    log, number, seconds = task
    _write(log, f'begin {number} {os.getpid()}')
    report(1, 2)
    time.sleep(seconds)
    _write(log, f'end {number} {os.getpid()}')
    return number


def ended_on_one_node(state, task, report):
    """Write as `slow`; on the second node of `two_nodes`, wait for the end of the process."""
    log, number = task
    second = _on_second_node()
    _write(log, f'begin {number} {"second" if second else "first"}')
    if second:
        time.sleep(600)
    deadline = time.monotonic() + 60
    while 'second' not in Path(log).read_text() and time.monotonic() < deadline:
        time.sleep(0.1)  # its worker may start later than all tasks take
    _write(log, f'end {number}')
    return number


def _on_second_node():
    import ray

    own = ray.get_runtime_context().get_node_id()
    return own == next(each['NodeID'] for each in ray.nodes() if 'GPU' in each['Resources'])


def failing(state, task, report):
    """Raise for the task 1, with the process in a log."""
    log, number = task
    time.sleep(1)
    _write(log, f'{number} {os.getpid()}')
    if number == 1:
        raise BagError('bad.mcap', 'it is damaged', 'record it again')
    return number


def killed(state, task, report):
    """End the process for the task 1, as the system does without memory."""
    log, number = task
    _write(log, f'{number} {os.getpid()}')
    if number == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def evaluate_until_killed(job, bundle, path, report):
    """Evaluate a bag; on the second node of `two_nodes` half of it, and then wait for the end."""
    second = _on_second_node()

    def wait(done, total):
        report(done, total)
        if second and total < 2 * done < 2 * total:
            (job.run_dir / f'{path.name}.half').touch()
            time.sleep(600)
    return _evaluate(job, bundle, path, wait)


def mistaken(state, task, report):
    raise ValueError(f'a mistake in task {task}')


def _write(log, line):
    with Path(log).open('a') as file:
        file.write(line + '\n')
