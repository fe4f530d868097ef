"""Tasks over workers: on this machine, and on a cluster of two nodes on loopback."""

from functools import partial
import os
from pathlib import Path
import signal
import subprocess
import sys
import threading
import time

from cluster_tasks import (
    ended_on_one_node,
    exiting_setup,
    failing,
    failing_setup,
    killed,
    mistaken,
    no_setup,
    node,
    slow,
    square,
)
from clusters import node_with_client
from karmma_ros.cli.options import add_worker_options, command_parser, workers_of
from karmma_ros.cluster.engine import check_shared, map_tasks, Workers, WorkerStoppedError
from karmma_ros.errors import BagError, InvalidSettingError, KarmmaError
import pytest

pytestmark = pytest.mark.usefixtures('tasks_path')


def lines(log):
    return [line.split() for line in Path(log).read_text().splitlines()]


def test_results_are_in_order_and_each_worker_is_set_up_once():
    done = []
    results = map_tasks(square, range(9), no_setup, Workers(count=2),
                        on_result=lambda index, result: done.append(index))
    assert [result[0] for result in results] == [n ** 2 for n in range(9)]
    assert sorted(done) == list(range(9))
    calls = {}
    for _, process, call in results:
        calls.setdefault(process, []).append(call)
    assert len(calls) == 2 and os.getpid() not in calls
    assert all(sorted(each) == list(range(1, len(each) + 1)) for each in calls.values())


def test_a_task_whose_worker_ends_is_run_alone_after_the_others(tmp_path):
    notes = []
    tasks = [(tmp_path / 'log', n) for n in range(4)]
    results = map_tasks(killed, tasks, no_setup, Workers(count=2), note=notes.append)
    assert [results[n] for n in (0, 2, 3)] == [0, 2, 3]
    assert isinstance(results[1], WorkerStoppedError) and 'twice' in str(results[1])
    ran = [int(number) for number, _ in lines(tmp_path / 'log')]
    assert sorted(ran) == [0, 1, 1, 2, 3] and ran[-1] == 1
    assert notes == ['a worker ended: its task is run again']


def test_what_is_no_error_of_ours_is_raised(cluster):
    with pytest.raises(ValueError, match='a mistake in task'):
        map_tasks(mistaken, range(3), no_setup, Workers(cluster))


@pytest.mark.parametrize(('setup', 'sentence'), [
    (failing_setup, 'the model is broken'), (exiting_setup, 'the workers end while they start')])
def test_a_setup_that_fails_everywhere_is_raised(cluster, setup, sentence):
    with pytest.raises(KarmmaError, match=sentence):
        map_tasks(square, range(3), setup, Workers(cluster))


def test_a_task_waits_for_those_that_it_needs(cluster, tmp_path):
    log, seen = tmp_path / 'log', set()
    tasks = [(log, n, 1.5 if n == 2 else 0) for n in range(4)]
    assert map_tasks(slow, tasks, no_setup, Workers(cluster),
                     needs={0: [2], 1: [0, 3]},
                     progress=lambda *each: seen.add(each)) == [0, 1, 2, 3]
    assert (2, 1, 2) in seen
    order = [(word, int(n)) for word, n, _ in lines(log)]
    assert order.index(('begin', 0)) > order.index(('end', 2))
    assert order.index(('begin', 1)) > max(order.index(('end', n)) for n in (0, 3))


def test_tasks_run_on_all_nodes_of_a_cluster(cluster):
    results = map_tasks(node, [1] * 4, no_setup, Workers(cluster))
    assert len({name for name, _ in results}) == 2


def test_a_gpu_is_claimed_and_seen_where_it_is(cluster):
    results = map_tasks(node, [0] * 4, no_setup, Workers(cluster, gpus=1))
    assert len({name for name, _ in results}) == 1
    assert {visible for _, visible in results} == {'0'}


@pytest.mark.parametrize(('device', 'jobs', 'gpus', 'fraction'), [
    ('auto', 3, 2, 0.5), ('cuda', 2, 8, 1), ('cuda:1', 3, 2, 0), ('auto', 1, 2, 0),
    ('auto', 3, 0, 0), ('cpu', 3, 2, 0), ('', 3, 2, 0)])
def test_jobs_of_one_machine_divide_its_gpus(monkeypatch, device, jobs, gpus, fraction):
    parser = command_parser('karmma test', None)
    add_worker_options(parser, 'jobs')
    monkeypatch.setattr('torch.cuda.device_count', lambda: gpus)
    options = parser.parse_args(['--cluster', '', '--jobs', str(jobs)])
    assert workers_of(options, device=device) == Workers(count=jobs, gpus=fraction)


def test_workers_of_one_machine_see_the_gpus_that_they_claim():
    results = map_tasks(node, [4, 4], no_setup, Workers(count=2, gpus=1))
    assert {visible for _, visible in results} == {'0', '1'}


def test_what_fails_on_one_node_is_tried_on_the_other(cluster, tmp_path):
    tasks = [(tmp_path / 'log', n) for n in range(4)]
    results = map_tasks(failing, tasks, no_setup, Workers(cluster))
    assert [results[n] for n in (0, 2, 3)] == [0, 2, 3]
    assert isinstance(results[1], BagError) and 'it is damaged' in str(results[1])
    tried = [process for number, process in lines(tmp_path / 'log') if number == '1']
    assert len(set(tried)) == 2


def test_a_cluster_without_what_is_needed_is_an_error(cluster):
    with pytest.raises(KarmmaError, match='each needs 64 CPU and 1 GPU of one machine, and the '
                       'cluster has 2 CPU and 1 GPU in all'):
        map_tasks(square, range(3), no_setup, Workers(cluster, 0, 64, 1, start_timeout_s=1))


def test_a_cluster_is_reached_from_outside(tmp_path):
    notes, tasks = [], [(tmp_path / 'log', n) for n in range(4)]
    with node_with_client() as address:
        results = map_tasks(killed, tasks, no_setup, Workers(address), note=notes.append)
    assert [results[n] for n in (0, 2, 3)] == [0, 2, 3]
    assert isinstance(results[1], WorkerStoppedError)
    assert notes == ['a worker ended: its task is run again']


@pytest.mark.parametrize(('address', 'reason'), [
    ('127.0.0.1:1', '.*refused'), ('ray://127.0.0.1:1', '.*refused'),
    ('ray://head', 'it lacks a host or a port'), ('ray://', 'it lacks a host or a port'),
    ('nonsense', 'Invalid address')])
def test_an_address_without_a_cluster_is_an_error(address, reason):
    began = time.monotonic()
    with pytest.raises(InvalidSettingError, match=f"--cluster is '{address}'; expected the "
                       f'address of a Ray cluster: {reason}.*: check that `ray status` works'):
        map_tasks(square, range(3), no_setup, Workers(address))
    assert time.monotonic() - began < 20


def test_a_folder_that_a_machine_lacks_is_an_error(cluster, tmp_path):
    with pytest.raises(InvalidSettingError, match="--out is '.*no_such'; expected a folder that "
                       'all machines of the cluster have: .* has none of this path'):
        map_tasks(square, range(3), partial(check_shared, '--out', tmp_path / 'no_such'),
                  Workers(cluster))


def test_without_ray_the_error_names_the_remedy(monkeypatch):
    monkeypatch.setitem(sys.modules, 'ray', None)
    with pytest.raises(InvalidSettingError, match='--jobs is 2; expected one job on this machine, '
                       'since Ray is not installed: pip install -r requirements/cluster.txt'):
        map_tasks(square, range(3), no_setup, Workers(count=2))


def test_an_interrupt_ends_the_workers(tmp_path):
    script = tmp_path / 'run.py'
    script.write_text(
        'import signal\n'
        'signal.signal(signal.SIGINT, signal.default_int_handler)  # pytest-xdist ignores it\n'
        'from cluster_tasks import no_setup, slow\n'
        'from karmma_ros.cluster.engine import check_shared, map_tasks, Workers\n'
        f'map_tasks(slow, [({str(tmp_path / "log")!r}, n, 60) for n in range(2)], no_setup, '
        'Workers(count=2))\n')
    process = subprocess.Popen([sys.executable, script], stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while not (tmp_path / 'log').exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    assert 'KeyboardInterrupt' in process.communicate(timeout=30)[1]
    workers = [int(each[2]) for each in lines(tmp_path / 'log')]
    deadline = time.monotonic() + 10
    while any(Path(f'/proc/{each}').exists() for each in workers):
        assert time.monotonic() < deadline, 'a worker has not ended'
        time.sleep(0.1)


@pytest.fixture
def drivers(monkeypatch):
    """Return the processes that are started here, to which each is added."""
    started, popen = [], subprocess.Popen

    def start(*arguments, **options):
        started.append(popen(*arguments, **options))
        return started[-1]
    monkeypatch.setattr('karmma_ros.cluster.engine.subprocess.Popen', start)
    return started


@pytest.mark.parametrize(('sent', 'reason'), [
    (signal.SIGKILL, 'ended (SIGKILL)'), (signal.SIGSTOP, 'has sent nothing for 3 s')])
def test_a_driver_that_stops_is_started_again_for_what_is_not_done(
    cluster, tmp_path, monkeypatch, drivers, sent, reason
):
    monkeypatch.setattr('karmma_ros.cluster.engine._SILENT_S', 3.0)
    monkeypatch.setattr('karmma_ros.cluster.engine._END_S', 1.0)
    log, notes, done = tmp_path / 'log', [], []

    def stop(index, result):
        done.append(index)
        if len(drivers) == 1:
            drivers[0].send_signal(sent)
    tasks = [(log, n, 1) for n in range(6)]
    assert map_tasks(slow, tasks, no_setup, Workers(cluster), on_result=stop,
                     note=notes.append) == list(range(6))
    assert notes == [f'the process that uses Ray {reason}: it is started again']
    assert sorted(done) == list(range(6)) and len(drivers) == 2
    assert all(driver.poll() is not None for driver in drivers)


def test_a_driver_that_ends_each_time_is_an_error(monkeypatch, drivers):
    monkeypatch.setattr('karmma_ros.cluster.engine._RUN_DRIVER', 'raise SystemExit(3)')
    with pytest.raises(KarmmaError, match=r'the process that uses Ray ended \(code 3\), twice: '
                       'give the same command again, and check that `ray status` works'):
        map_tasks(square, range(3), no_setup, Workers(count=2))
    assert len(drivers) == 2


def test_after_a_node_is_killed_every_task_is_done_once(nodes, tmp_path):
    """The last test, since the node does not come back."""
    log, notes, done = tmp_path / 'log', [], []
    address, kill = nodes

    def kill_later():
        while 'second' not in (log.read_text() if log.exists() else ''):
            time.sleep(0.02)
        kill()
    thread = threading.Thread(target=kill_later, daemon=True)
    thread.start()
    tasks = [(log, n) for n in range(8)]
    assert map_tasks(ended_on_one_node, tasks, no_setup, Workers(address), note=notes.append,
                     on_result=lambda index, result: done.append(index)) == list(range(8))
    thread.join(10)
    assert not thread.is_alive() and notes == ['a worker ended: its task is run again']
    assert sorted(done) == list(range(8))
    assert sorted(int(line[1]) for line in lines(log) if line[0] == 'end') == list(range(8))
    assert len([line for line in lines(log) if line[0] == 'begin']) == 9
