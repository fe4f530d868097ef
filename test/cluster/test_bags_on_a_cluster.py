"""Commands with `--cluster`: two nodes give what one process gives, byte for byte."""

import json
import re
import threading
import time

from cluster_tasks import evaluate_until_killed
from karmma_ros.cli.main import main
import pytest

BAGS = 4
TIMINGS = re.compile(r'latency.*')


@pytest.fixture(scope='module')
def bags(tmp_path_factory):
    folder = tmp_path_factory.mktemp('bags')
    for i in range(BAGS):
        assert main(['bag', 'synthetic', str(folder / f'kitchen_{i}.mcap'), '--episodes', '2',
                     '--seconds', '2', '--size', '48x32', '--rate', '15', '--seed', str(i)]) == 0
    bad = folder / 'kitchen_bad.mcap'
    bad.write_bytes(b'no bag')
    return sorted(folder.iterdir())


@pytest.fixture(scope='module')
def alone(bags, tmp_path_factory):
    """Return the report of one process."""
    out = tmp_path_factory.mktemp('alone')
    assert evaluate(bags, out) == 1  # one bag is left out
    return report(out)


def evaluate(bags, out, *words):
    return main(['bag', 'evaluate', *map(str, bags), '--model', 'synthetic_kitchen', '--subsets',
                 '--out', str(out), *words])


def provenance(out):
    return json.loads((out / 'report.json').read_text())['provenance']


def report(out):
    """Return the bytes of a report without its date and its timings."""
    content = json.loads((out / 'report.json').read_text())
    left_out = content.pop('provenance')['left out']
    return json.dumps([without_timings(content), left_out]).encode()


def without_timings(node):
    if isinstance(node, dict):
        return {k: without_timings(v) for k, v in node.items() if not TIMINGS.fullmatch(k)}
    return [without_timings(each) for each in node] if isinstance(node, list) else node


def on_cluster(cluster, bags, out):
    return evaluate(bags, out, '--cluster', cluster, '--job-cpus', '1')


def test_two_nodes_give_the_report_of_one_process(cluster, bags, alone, tmp_path):
    assert on_cluster(cluster, bags, tmp_path) == 1
    assert report(tmp_path) == alone
    assert 'real_time' in provenance(tmp_path)
    assert on_cluster(cluster, bags, tmp_path) == 1
    assert 'real_time' not in provenance(tmp_path)  # nothing was computed again
    assert report(tmp_path) == alone


def test_two_nodes_fine_tune_the_model_of_one_process(cluster, bags, tmp_path):
    good = [bag for bag in bags if 'bad' not in bag.name]
    rows = [f'{bag.stem},{start},{start + 2},{("stir", "pour")[start // 2]}'
            for bag in good for start in (0, 2)]
    (tmp_path / 'labels.csv').write_text('\n'.join(['recording,start,stop,action', *rows]))

    def finetune(name, *words):
        assert main(['finetune', *map(str, good), '--labels', str(tmp_path / 'labels.csv'),
                     '--from', 'synthetic_kitchen', '--steps', '20', '--windows', '2', '--cache',
                     str(tmp_path / name), '--out', str(tmp_path / name / 'model'), *words]) == 0
        return (tmp_path / name / 'model' / 'model.safetensors').read_bytes()
    assert finetune('cluster', '--cluster', cluster, '--job-cpus', '1') == finetune('alone')


def test_two_nodes_pack_the_shards_of_one_process(cluster, tmp_path):
    def pack(name, *words):
        assert main(['data', 'pack', '--cache', str(tmp_path / 'cache'), '--out',
                     str(tmp_path / name), *words, '--data.synthetic_kitchen.train', '16',
                     '--data.synthetic_kitchen.validation', '4',
                     '--data.synthetic_kitchen.test', '4']) == 0
        return {path.name: path.read_bytes() for path in (tmp_path / name).iterdir()}
    alone = pack('alone', '--jobs', '1')
    assert pack('cluster', '--cluster', cluster, '--job-cpus', '1') == alone
    (tmp_path / 'cluster' / 'chunk-0-1.json').unlink()  # as if it was killed at this shard
    (tmp_path / 'cluster' / 'pack.json').unlink()
    assert pack('cluster', '--cluster', cluster, '--job-cpus', '1') == alone
    assert sum(name.endswith('.bin') for name in alone) == 3


def test_a_node_that_is_killed_in_the_middle_of_a_bag_changes_nothing(
    nodes, bags, alone, tmp_path, monkeypatch, capsys
):
    """The last test, since the node does not come back."""
    monkeypatch.setattr('karmma_ros.bags.parallel._evaluate', evaluate_until_killed)

    def kill_later():
        while not list(tmp_path.glob('work/*.half')):
            time.sleep(0.02)
        nodes[1]()
    thread = threading.Thread(target=kill_later, daemon=True)
    thread.start()
    assert on_cluster(nodes[0], bags, tmp_path) == 1
    thread.join(10)
    assert not thread.is_alive()
    assert report(tmp_path) == alone
    assert capsys.readouterr().out.count('a worker ended: its task is run again') == 1
