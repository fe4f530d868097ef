"""Command-line parsers, the options that several commands share, and small output helpers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.util import find_spec
import json
import math
import os
from pathlib import Path
import platform
import re
import sys
from typing import Any, NoReturn, TYPE_CHECKING

from jsonargparse import (
    ActionConfigFile,
    ArgumentParser,
    DefaultHelpFormatter,
    Namespace,
    set_parsing_settings,
)
from karmma_ros.errors import InvalidSettingError, KarmmaError
import yaml

if TYPE_CHECKING:
    from karmma_ros.cluster.engine import Workers
    from karmma_ros.data.datasets import DataSettings
    from karmma_ros.model.bundle import Bundle

_WRONG_TYPE = re.compile(r'Parser key "(.+?)":\s+Expected an? (.+)\. Got value: (.*)', re.DOTALL)
_INPUT_FIELD = re.compile(r'(--(?:\w+\.)*clip\.inputs)\.(\w+)\.(\w+)(?:=(.*))?', re.DOTALL)
"""A field of the specification of a modality, such as `--data.clip.inputs.imu.samples`."""
_MAPPING = re.compile(r'(?<=^--)[a-z]+(?:-[a-z]+)+(?=\.)')
"""The name of a mapping in an option such as `--fold-teachers.NAME`."""
_NO_INFORMATION = re.compile(
    r'type: (?:<function .*? at \w+>|Literal\[.*?\])(?:, )?'
    r'|(?:, )?default: (?:null|\[\]|False|)(?=\))')


class _HelpFormatter(DefaultHelpFormatter):
    """Leave empty defaults out of the help, and name classes without their repr."""

    def _expand_help(self, action: Any) -> str:
        text = _NO_INFORMATION.sub('', super()._expand_help(action))
        return _plain(text).replace(' ()', '').replace('(required, )', '(required)')


class CommandParser(ArgumentParser):
    """A parser whose errors are one sentence with exit status 2."""

    def parse_args(self, args: Any = None, *given: Any, **named: Any) -> Any:
        """
        Parse arguments; single fields of `clip.inputs` are added to those that are configured.

        jsonargparse replaces all fields of a modality by the last that is given, and takes keys
        of a mapping, as `--fold-teachers.NAME`, with underscores alone.
        """
        others, fields = _split_input_fields([
            _MAPPING.sub(lambda name: name[0].replace('-', '_'), arg)
            for arg in (sys.argv[1:] if args is None else args)])
        parsed = super().parse_args(others, *given, **named)
        if not fields:
            return parsed
        for option, values in fields.items():
            mapping, _, modality = option.rpartition('.')
            known = (parsed.get(mapping[2:]) or {}).get(modality, {})
            others += [option, json.dumps({**known, **values})]
        return super().parse_args(others, *given, **named)

    def instantiate(self, *given: Any, **named: Any) -> Any:
        """
        Build the settings.

        :raises KarmmaError: of a setting that may be absent, too, which jsonargparse wraps.
        """
        try:
            return super().instantiate(*given, **named)
        except ValueError as error:
            if isinstance(error.__cause__, KarmmaError):
                raise error.__cause__ from None
            raise

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Print the error and exit; raise it where the parser is used inside another one."""
        if not self.exit_on_error:
            super().error(message, ex)
        if match := _WRONG_TYPE.fullmatch(message.strip()):
            key, expected, value = match.groups()
            names = [f'{self.prog} {key}', f'--{key}', f'--{key.replace("_", "-")}']
            name = next((n for n in names if n in self._option_string_actions), key)
            message = f'{name} is {value!r}; expected {_plain(expected)}'
        print(f'{self.prog}: error: {" ".join(message.split())}; see `{self.prog} --help`',
              file=sys.stderr)
        sys.exit(2)


def _split_input_fields(args: list[str]) -> tuple[list[str], dict[str, dict[str, Any]]]:
    """Return the other arguments, and the option of a modality → its fields that are given."""
    others: list[str] = []
    fields: dict[str, dict[str, Any]] = {}
    rest = iter(args)
    for arg in rest:
        match = _INPUT_FIELD.fullmatch(arg)
        text = match[4] if match and match[4] is not None else next(rest, '') if match else ''
        if match is None:
            others.append(arg)
        else:
            fields.setdefault(f'{match[1]}.{match[2]}', {})[match[3]] = yaml.safe_load(text)
    return others, fields


def _plain(text: str) -> str:
    """Name classes without their repr, and the values of a Literal without its name."""
    text = re.sub(r"<class '(?:\w+\.)*(\w+)'>", r'\1', text)
    return re.sub(r'(?:typing\.)?Literal\[(.*?)\]', lambda m: m[1].replace("'", ''), text)


def command_parser(command: str, description: str | None, usage: str = '') -> CommandParser:
    """
    Return the parser of a command.

    The help of a dataclass's options comes from the docstrings under its fields.

    :param command: its full name, such as `karmma bag record`.
    :param usage: what follows the name in the usage line; empty: all options.
    """
    set_parsing_settings(docstring_parse_attribute_docstrings=True)
    return CommandParser(
        prog=command, description=description, usage=f'{command} {usage}' if usage else None,
        allow_abbrev=False, formatter_class=_HelpFormatter)


def to_path(text: str | Path) -> Path:
    """Convert an argument; unlike the type Path, also one that is not UTF-8."""
    return Path(text)


class _DataSection(ActionConfigFile):
    """Apply only the section `data` of a training configuration."""

    def __call__(self, parser: Any, cfg: Any, values: Any, option_string: str | None = None
                 ) -> None:
        """
        Apply the section of the file that the option names.

        :raises InvalidSettingError: when the file cannot be read or has no such section.
        """
        try:
            content = yaml.safe_load(Path(values).read_text(encoding='utf-8'))
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            raise InvalidSettingError(
                '--config', values, f'a YAML file that can be read ({error})') from error
        data = content.get('data') if isinstance(content, dict) else None
        if not isinstance(data, dict):
            raise InvalidSettingError('--config', values, 'a file with a section `data`',
                                      'take one of config/train/, or give --data.dataset')
        super().__call__(parser, cfg, json.dumps({'data': data}), option_string)


def add_data_options(parser: CommandParser) -> None:
    """Add `--config`, `--data.*` and `--cache`: which data set, and where it is."""
    from karmma_ros.data.datasets import DataSettings

    parser.add_argument('--config', action=_DataSection, metavar='YAML',
                        help='configuration whose section `data` names the data set, such as one '
                        'of config/train/; options after it override it')
    add_cache_option(parser)
    parser.add_class_arguments(DataSettings, 'data')


def add_cache_option(parser: CommandParser) -> None:
    """Add `--cache`."""
    parser.add_argument('--cache', type=str, default='', metavar='DIR', help='directory for what '
                        'is computed once from the data set (default: .cache/ and its name)')


def add_output_option(parser: CommandParser, text: str, default: str = '') -> None:
    """Add `--out DIR`, required unless there is a default."""
    given: dict[str, Any] = {'default': Path(default)} if default else {'required': True}
    parser.add_argument('--out', type=to_path, metavar='DIR', help=text, **given)


def check_writable(out: Path, setting: str) -> None:
    """
    Check before a long computation that its result can be written.

    :raises InvalidSettingError: for a path below a file, or in a folder that is read-only.
    """
    folder = next(each for each in (out, *out.absolute().parents) if each.exists())
    if folder != out and not folder.is_dir():
        raise InvalidSettingError(setting, str(out), 'a path in a folder', f'{folder} is a file')
    if not os.access(folder, os.W_OK):
        raise InvalidSettingError(setting, str(out), 'a path that can be written to',
                                  f'{folder} is read-only for this user')


def add_device_option(parser: CommandParser) -> None:
    """Add `--device`."""
    from karmma_ros.model.backends import selection

    parser.add_argument('--device', type=str, default=selection.AUTO, help=selection.HELP)


def cores() -> int:
    """Return how many jobs this machine runs well: its cores, or 1 without Ray."""
    return (os.cpu_count() or 1) if find_spec('ray') else 1


def add_worker_options(parser: CommandParser, what: str, default: str = '1') -> None:
    """
    Add `--jobs`, `--cluster`, `--job-cpus` and `--job-gpus`.

    :param what: is done in parallel, in the plural.
    :param default: how many at a time on this machine, for the help; see `workers_of`.
    """
    from karmma_ros.cluster.engine import JOB_CPUS

    group = parser.add_argument_group('machines')
    group.add_argument('--jobs', type=int, metavar='N', help=f'most {what} at a time (default: '
                       f'{default}; with a cluster, all that it has resources for)')
    group.add_argument('--cluster', type=str, default=os.environ.get('RAY_ADDRESS', ''),
                       metavar='ADDRESS', help='Ray cluster to run on, such as ray://head:10001 '
                       '(default: the variable RAY_ADDRESS, else this machine alone)')
    group.add_argument('--job-cpus', type=int, default=JOB_CPUS, metavar='N',
                       help='processor cores of the cluster that each claims')
    group.add_argument('--job-gpus', type=float, metavar='N', help='GPUs of the cluster for each, '
                       'or a fraction of one (default: 1 with --device cuda, else none is used)')


def add_bucket_option(parser: CommandParser) -> None:
    """Add `--bucket-cache`."""
    parser.add_argument('--bucket-cache', metavar='GIB', type=float, default=50, help='largest '
                        'size of the bags of s3:// and other URLs that each machine keeps, in '
                        '~/.cache/karmma_ros')


def workers_of(options: Namespace, default: int = 1, device: str = '') -> Workers:
    """
    Return what `add_worker_options` gave.

    :param default: jobs of this machine.
    :param device: of the jobs; empty: the option `--device`, if there is one.
    :raises InvalidSettingError: for numbers that cannot be.
    """
    from karmma_ros.cluster.engine import Workers

    if options.jobs is not None and options.jobs < 1:
        raise InvalidSettingError('--jobs', options.jobs, 'a whole number above 0')
    if options.job_cpus < 1:
        raise InvalidSettingError('--job-cpus', options.job_cpus, 'a whole number above 0')
    if options.job_gpus is not None and options.job_gpus < 0:
        raise InvalidSettingError('--job-gpus', options.job_gpus, 'a number from 0')
    device = device or str(options.get('device') or '')
    if options.cluster in ('', 'local'):
        count = options.jobs or default
        return Workers(count=count, gpus=_gpu_fraction(device, count))
    gpus = float(device.startswith('cuda')) if options.job_gpus is None else options.job_gpus
    return Workers(options.cluster, options.jobs or 0, options.job_cpus, gpus)


def _gpu_fraction(device: str, count: int) -> float:
    """Return what each of several jobs claims of the GPUs of this machine; 0: one is named."""
    if count == 1 or device not in ('auto', 'cuda'):
        return 0
    import torch

    gpus = torch.cuda.device_count()
    return 1 / math.ceil(count / gpus) if gpus else 0


def worker_device(options: Namespace, workers: Workers) -> str:
    """
    Return the device of each worker: that of this machine, or the GPU that it claims.

    :raises InvalidSettingError: for a device that this machine does not have.
    """
    from karmma_ros.model.backends import selection

    if not workers.address and not workers.gpus:
        return selection.choose_device(options.device, '--device')
    return f'{selection.CUDA}:0' if workers.gpus else selection.CPU


def add_custom_encoders_option(parser: CommandParser) -> None:
    """Add `--custom-encoders`."""
    parser.add_argument('--custom-encoders', action='store_true', help='allow models that name '
                        'encoder classes of their own; their code is run')


MODEL_HELP = 'name or directory of a model, or hf://ORGANISATION/NAME@REVISION on the Hub'


def open_model(
    text: str, setting: str, *, custom_encoders: bool = False, named: bool = True,
) -> Bundle:
    """
    Load a model by path, name or Hub id; what is done at the Hub is printed.

    :param named: whether names of included models are taken.
    :raises InvalidSettingError: when there is no such model, or code of a model from the Hub is
        to be run.
    :raises BundleError: when it cannot be used.
    """
    from karmma_ros.model.bundle import load_bundle
    from karmma_ros.model.hub import is_hub_reference

    if custom_encoders and is_hub_reference(text):
        raise InvalidSettingError(
            '--custom-encoders', True, 'false for a model of the Hub',
            f'code is never run for {text}; name a directory whose code you trust')
    return load_bundle(model_folder(text, setting, named=named), custom_encoders=custom_encoders)


def model_folder(text: str, setting: str, *, named: bool = True) -> Path:
    """Return the directory of a model by path, name or Hub id; as `open_model`."""
    from karmma_ros.model.hub import is_hub_reference
    from karmma_ros.model.registry import find_model

    if not named and not is_hub_reference(text):
        return Path(text)
    return find_model(text, setting, lambda line: print(line, file=sys.stderr, flush=True))


def data_cache(options: Namespace, settings: DataSettings) -> Path:
    """Return the directory of `--cache`."""
    return Path(options.cache or Path('.cache') / settings.dataset)


@contextmanager
def writing(setting: str, path: Path) -> Iterator[None]:
    """
    Name the setting when its path cannot be written to.

    :raises InvalidSettingError: in that case.
    """
    try:
        yield
    except OSError as error:
        raise InvalidSettingError(setting, str(path), 'a path that can be written to',
                                  error.strerror or str(error)) from None


def processor() -> str:
    """Return the name of the processor, or its architecture where the system does not name it."""
    with suppress(OSError):
        for line in Path('/proc/cpuinfo').read_text(encoding='utf-8').splitlines():
            if line.startswith('model name'):
                return line.partition(':')[2].strip()
    return platform.processor() or platform.machine()


def this_machine() -> str:
    """Return the processor, the number of cores and the version of PyTorch."""
    import torch

    return f'{processor()}, {os.cpu_count()} cores, torch {torch.__version__}'
