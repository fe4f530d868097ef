"""
Make the environment in .venv that `make demo` and `make test` run in.

Standard library only: it runs before anything is installed. Each step keeps a fingerprint of
what it was made from, in .venv/karmma_environment.json, so that a second run has nothing to do
and an interrupted run is resumed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
import fcntl
import hashlib
import importlib.util
import json
import os
from pathlib import Path
import platform
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / '.venv'
PYTHON = Path(getattr(sys, '_base_executable', sys.executable))
"""The machine's Python, also when this runs in the environment that it is to replace."""
REQUIREMENTS = ('runtime.txt', 'training.txt', 'cluster.txt', 'development.txt')
STAND_INS = ('audio_common_msgs', 'vision_msgs', 'yolo_msgs')
"""Real packages without a wheel, most of them in every distribution: test/interfaces/ has them."""

# What the wheels' CMake files remember of the machine that built them.
BUILDERS_PYTHON = re.compile(r'/opt/python/cp\d+-cp\d+/include/python\d\.\d+')
BUILDERS_NUMPY = re.compile(
    r'/opt/python/cp\d+-cp\d+/lib/python\d\.\d+/site-packages/numpy/_?core/include'
)
NO_NETWORK = re.compile(
    r'NewConnectionError|ConnectTimeout|ReadTimeout|NameResolutionError|ProxyError|SSLError'
    r'|Failed to establish a new connection|name resolution|Network is unreachable'
)


class EnvironmentProblem(Exception):
    """The environment cannot be made; the message is one sentence with the fix."""


@dataclass(frozen=True)
class Distribution:
    """A sourced ROS 2 distribution."""

    name: str
    prefixes: tuple[str, ...]

    def has(self, package: str) -> bool:
        """Return whether one of its prefixes holds `package`."""
        marker = Path('share', 'ament_index', 'resource_index', 'packages', package)
        return any((Path(prefix) / marker).exists() for prefix in self.prefixes)


def find_distribution(environ: Mapping[str, str], python: str) -> Distribution | None:
    """
    Find the sourced distribution: its variables are set and its rclpy can be imported.

    An environment made by this script has the same variables when sourced; it is not one.
    """
    prefixes = environ.get('AMENT_PREFIX_PATH', '').split(os.pathsep)
    foreign = tuple(p for p in prefixes if p and not Path(p).is_relative_to(VENV))
    if not foreign or 'ROS_DISTRO' not in environ:
        return None
    result = subprocess.run([python, '-c', 'import rclpy'], capture_output=True, env=environ)
    return Distribution(environ['ROS_DISTRO'], foreign) if result.returncode == 0 else None


def check_python(newest: tuple[int, int]) -> None:
    """
    Check the version of the Python that runs this.

    :raises EnvironmentProblem: when the pinned packages do not exist for it.
    """
    if not (3, 10) <= sys.version_info[:2] <= newest:
        raise EnvironmentProblem(
            'Python {}.{} cannot be used: '.format(*sys.version_info[:2])
            + 'install one from 3.10 to {}.{} '.format(*newest)
            + 'and name it, e.g. make env PYTHON=python3.11.'
        )


def check_machine(distribution: Distribution | None) -> None:
    """
    Check for what only the machine's owner can install, before anything is downloaded.

    :raises EnvironmentProblem: for the first missing package.
    """
    dotted = '{}.{}'.format(*sys.version_info[:2])
    machine = (platform.system(), platform.machine())
    if distribution is None and machine != ('Linux', 'x86_64'):
        raise EnvironmentProblem(
            f'ROS 2 cannot be had as wheels on {machine[0]} {machine[1]}: install a ROS 2 '
            'distribution and source its setup.bash first.'
        )
    if any(importlib.util.find_spec(name) is None for name in ('venv', 'ensurepip')):
        raise EnvironmentProblem(
            f'Python {dotted} cannot make virtual environments: install the package '
            f'python{dotted}-venv (sudo apt install python{dotted}-venv).'
        )
    if not Path(sysconfig.get_paths()['include'], 'Python.h').exists():
        raise EnvironmentProblem(
            f'The headers of Python {dotted} are missing: install the package '
            f'python{dotted}-dev (sudo apt install python{dotted}-dev).'
        )
    compiler = shlex.split(os.environ.get('CXX', '')) or ['c++']
    if not any(shutil.which(name) for name in (compiler[0], 'g++', 'clang++')):
        raise EnvironmentProblem(
            'There is no C++ compiler: install the package g++ (sudo apt install g++).')
    if distribution and importlib.util.find_spec('colcon_core') is None:
        raise EnvironmentProblem(
            f'colcon is missing beside ROS 2 {distribution.name}: install it '
            '(sudo apt install python3-colcon-common-extensions).'
        )


class Steps:
    """What has been done in .venv, and from what."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self.done: dict[str, str] = json.loads(path.read_text())
        except (OSError, ValueError):
            self.done = {}

    @contextmanager
    def step(self, name: str, *inputs: str) -> Iterator[bool]:
        """Return True when `name` was never finished with these inputs; note when it is."""
        key = hashlib.sha256('\n'.join(inputs).encode()).hexdigest()
        if self.done.get(name) == key:
            yield False
            return
        self._write({**self.done, name: 'begun'})
        yield True
        self._write({**self.done, name: key})

    def _write(self, done: dict[str, str]) -> None:
        self.done = done
        self.path.parent.mkdir(exist_ok=True)
        draft = self.path.with_suffix('.part')
        draft.write_text(json.dumps(done, indent=2))
        draft.replace(self.path)


def report(text: str) -> None:
    """Print what takes long."""
    print(f'env: {text}', flush=True)


def call(command: Sequence[str | Path], log: Path, env: Mapping[str, str], cwd: Path) -> None:
    """
    Run `command` with its output in `log`.

    :raises EnvironmentProblem: when it fails, with the likeliest reason.
    """
    with log.open('w') as output:
        result = subprocess.run(
            [str(part) for part in command], stdout=output, stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL, env=env, cwd=cwd,
        )
    if result.returncode == 0:
        return
    text = log.read_text(errors='replace')
    if NO_NETWORK.search(text):
        raise EnvironmentProblem(
            'The Python package index cannot be reached: connect this machine to the network, '
            'or point pip at an index that it reaches (PIP_INDEX_URL), and run make env again.'
        )
    if 'No space left on device' in text:
        raise EnvironmentProblem(
            'The disk is full: .venv needs about 3 GB, or 8 GB with the CUDA build of PyTorch.')
    reason = next((line for line in text.splitlines() if 'rror' in line), 'no reason given')
    raise EnvironmentProblem(
        f'{log.stem} failed ({reason.strip()}): its whole output is in {log}.')


def make_venv(distribution: Distribution | None) -> None:
    """Make .venv afresh with the Python that runs this script."""
    report(f'making .venv with Python {platform.python_version()}')
    shutil.rmtree(VENV, ignore_errors=True)
    options = ['--system-site-packages'] if distribution else []
    command = [str(PYTHON), '-m', 'venv', *options, str(VENV)]
    result = subprocess.run(command, capture_output=True, text=True)
    if result.returncode != 0:
        reason = (result.stdout + result.stderr).strip().splitlines() or ['no reason given']
        raise EnvironmentProblem(f'{PYTHON} -m venv failed: {reason[-1]}')
    # A workspace that holds this repository is not searched for packages in here.
    (VENV / 'COLCON_IGNORE').touch()


def install_packages(distribution: Distribution | None, env: Mapping[str, str]) -> None:
    """
    Install the pinned requirements: PyTorch first, so that nothing else chooses its build.

    Beside a distribution numpy is kept on its side of 2.0: the message packages and cv_bridge
    of that distribution are compiled against it.
    """
    folder = ROOT / 'requirements'
    log = VENV / 'pip.log'
    pip = [venv_python(), '-m', 'pip', '--disable-pip-version-check', '--retries', '2']
    constraints: list[str | Path] = []
    if distribution:
        probe = [str(PYTHON), '-c', 'import numpy; print(numpy.__version__)']
        version = subprocess.run(probe, capture_output=True, text=True, env=env).stdout.strip()
        if version.startswith('1.'):
            limit = VENV / 'numpy_of_the_distribution.txt'
            limit.write_text('numpy<2\n')
            constraints = ['-c', limit]
    report('installing PyTorch')
    call([*pip, 'install', *constraints, '-r', folder / 'torch.txt'], log, env, ROOT)
    names = REQUIREMENTS if distribution else ('ros.txt', *REQUIREMENTS)
    report(f'installing {", ".join(Path(name).stem for name in names)} packages')
    files = [part for name in names for part in ('-r', folder / name)]
    call([*pip, 'install', *constraints, *files], log, env, ROOT)


def fix_wheels() -> None:
    """Point the wheels' CMake files at this Python's headers instead of their builder's."""
    headers = sysconfig.get_paths()['include']
    numpy = subprocess.run(
        [venv_python(), '-c', 'import numpy; print(numpy.get_include())'],
        capture_output=True, text=True, check=True, env=wheels_variables(),
    ).stdout.strip()
    for path in sorted((VENV / 'share').rglob('*.cmake')):
        text = path.read_text()
        fixed = BUILDERS_PYTHON.sub(headers, BUILDERS_NUMPY.sub(numpy, text))
        if fixed != text:
            path.write_text(fixed)


def build_interfaces(distribution: Distribution | None, env: Mapping[str, str]) -> None:
    """Build karmma_msgs, and the stand-ins for message packages that are not there."""
    wanted = [ROOT / 'test' / 'interfaces' / name for name in missing_interfaces(distribution)]
    wanted.append(ROOT / 'karmma_msgs')
    report('building ' + ', '.join(path.name for path in wanted))
    build_folder = VENV / 'interfaces'
    shutil.rmtree(build_folder, ignore_errors=True)
    build_folder.mkdir()
    path = os.pathsep.join([str(VENV / 'bin'), env.get('PATH', os.defpath)])
    environ = {**env, 'PATH': path, 'COLCON_LOG_PATH': str(build_folder / 'log'),
               'COLCON_DEFAULTS_FILE': os.devnull}
    if distribution is None:
        environ['AMENT_PREFIX_PATH'] = environ['CMAKE_PREFIX_PATH'] = str(VENV)
    command = [
        venv_python(), '-m', 'colcon', 'build', '--merge-install',
        '--base-paths', *wanted,
        '--build-base', build_folder / 'build', '--install-base', build_folder / 'install',
        '--cmake-args', '-DBUILD_TESTING=OFF', '-DCMAKE_BUILD_TYPE=Release',
        f'-DPython3_EXECUTABLE={venv_python()}', '--no-warn-unused-cli',
    ]
    # Not from the repository's root: colcon would take the colcon_defaults.yaml that lies there.
    call(command, VENV / 'colcon.log', environ, build_folder)


def missing_interfaces(distribution: Distribution | None) -> tuple[str, ...]:
    """Name the message packages that must be built as stand-ins."""
    if distribution is None:
        return STAND_INS
    return tuple(name for name in STAND_INS if not distribution.has(name))


def install_ourselves() -> None:
    """Make karmma_ros and the built messages importable, and `karmma` a command."""
    site = Path(subprocess.run(
        [venv_python(), '-c', "import sysconfig; print(sysconfig.get_paths()['purelib'])"],
        capture_output=True, text=True, check=True, env=wheels_variables(),
    ).stdout.strip())
    # Where ament puts Python packages differs between Debian's Python and the others.
    built = sorted((VENV / 'interfaces' / 'install').glob('**/karmma_msgs/__init__.py'))
    lines = [str(built[0].parent.parent), str(ROOT)]
    (site / 'karmma_ros.pth').write_text('\n'.join(lines) + '\n')
    command = VENV / 'bin' / 'karmma'
    command.write_text(
        '#!/bin/sh\n'
        f'. {shlex.quote(str(VENV / "karmma_env.sh"))}\n'
        f'exec {shlex.quote(str(venv_python()))} -c \'import sys; sys.argv[0] = "karmma"; '
        'from karmma_ros.cli.main import main; sys.exit(main())\' "$@"\n'
    )
    command.chmod(0o755)


def write_variables(distribution: Distribution | None) -> None:
    """Write .venv/karmma_env.sh: sourced by the Makefile, by `karmma` and by people."""
    install = VENV / 'interfaces' / 'install'
    before = {'PATH': [VENV / 'bin'], 'AMENT_PREFIX_PATH': [install],
              'CMAKE_PREFIX_PATH': [install], 'LD_LIBRARY_PATH': [install / 'lib']}
    lines = ['# Written by requirements/environment.py. Use: . .venv/karmma_env.sh',
             f'export VIRTUAL_ENV={shlex.quote(str(VENV))}']
    if distribution is None:
        before['AMENT_PREFIX_PATH'].append(VENV)
        before['CMAKE_PREFIX_PATH'].append(VENV)
        before['LD_LIBRARY_PATH'] += library_folders()
        # The wheels start Python twice unless their variables are marked as set.
        lines.append('export _ROS_WHEELS_BOOTSTRAP_COMPLETE=1')
    for name, folders in before.items():
        value = os.pathsep.join(str(folder) for folder in folders)
        lines.append(f'case "${{{name}-}}" in *{shlex.quote(value)}*) ;; *) '
                     f'export {name}={shlex.quote(value)}"${{{name}:+:${name}}}" ;; esac')
    (VENV / 'karmma_env.sh').write_text('\n'.join(lines) + '\n')


def library_folders() -> list[Path]:
    """List the folders where the wheels keep shared libraries."""
    return [VENV / 'lib', *sorted(VENV.glob('lib/python*/site-packages/ros_*.libs'))]


def wheels_variables() -> dict[str, str]:
    """Return the variables that a Python with the ROS wheels wants at its start."""
    libraries = os.pathsep.join(str(folder) for folder in library_folders())
    return {**os.environ, '_ROS_WHEELS_BOOTSTRAP_COMPLETE': '1', 'LD_LIBRARY_PATH': libraries}


def venv_python() -> Path:
    """Locate the environment's Python."""
    return VENV / 'bin' / 'python'


def content(*paths: Path) -> str:
    """Fingerprint the files at and below `paths`."""
    files = sorted(f for p in paths for f in (p.rglob('*') if p.is_dir() else [p]) if f.is_file())
    digest = hashlib.sha256()
    for file in files:
        digest.update(f'{file.relative_to(ROOT)}\0'.encode())
        digest.update(hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()


def make_environment() -> None:
    """
    Bring .venv up to date.

    :raises EnvironmentProblem: when something is missing that cannot be installed from here.
    """
    # A distribution may be newer than what the wheels are pinned for.
    check_python((3, 14) if 'ROS_DISTRO' in os.environ else (3, 13))
    distribution = find_distribution(os.environ, str(PYTHON))
    if distribution is None:
        check_python((3, 13))
    ros = ' '.join([distribution.name, *distribution.prefixes]) if distribution else 'wheels'
    folder = ROOT / 'requirements'
    if os.path.lexists(VENV) and not VENV.is_dir():
        raise EnvironmentProblem(
            f'{VENV} is no directory that can be written: remove it and run again.')
    steps = Steps(VENV / 'karmma_environment.json')
    base = f'{PYTHON.resolve()} {platform.python_version()} {ros} {ROOT}'
    script = content(Path(__file__))
    wheels = content(folder / 'ros.txt')
    packages = wheels + content(*(folder / name for name in ('torch.txt', *REQUIREMENTS)))
    interfaces = content(ROOT / 'karmma_msgs', ROOT / 'test' / 'interfaces')
    interfaces += ' '.join([wheels, *missing_interfaces(distribution)])

    # pip does not reliably repair an interrupted installation: then everything starts afresh.
    if steps.done.get('packages') == 'begun' or not venv_python().exists():
        steps.done = {}
    with steps.step('venv', base) as wanted:
        if wanted:
            check_machine(distribution)
            make_venv(distribution)
            steps.done = {}
    env = dict(os.environ) if distribution else wheels_variables()
    with steps.step('packages', base, packages) as wanted:
        if wanted:
            install_packages(distribution, env)
    if distribution is None:
        with steps.step('fixed', base, packages, script) as wanted:
            if wanted:
                fix_wheels()
    env = dict(os.environ) if distribution else wheels_variables()
    with steps.step('interfaces', base, interfaces) as wanted:
        if wanted:
            check_machine(distribution)
            build_interfaces(distribution, env)
    with steps.step('ourselves', base, interfaces, script) as wanted:
        if wanted:
            install_ourselves()
            write_variables(distribution)
            report('ready: . .venv/karmma_env.sh')


def main() -> int:
    """Make the environment; print in one sentence why it cannot be made."""
    lock = os.open(ROOT / 'requirements', os.O_RDONLY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        make_environment()
    except EnvironmentProblem as problem:
        print(f'env: {problem}', file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print('env: stopped; run it again to resume.', file=sys.stderr)
        return 130
    finally:
        os.close(lock)
    return 0


if __name__ == '__main__':
    sys.exit(main())
