"""The ament_python package karmma_ros; colcon builds it, `make env` needs no build."""

import os
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.develop import develop
from setuptools.command.install import install

NAME = 'karmma_ros'
MESSAGES = 'karmma_msgs'
PREFIXES = ('AMENT_PREFIX_PATH', 'COLCON_PREFIX_PATH', 'CMAKE_PREFIX_PATH')
NO_MESSAGES = f"""{NAME}: the package {MESSAGES} is neither in this workspace nor in a sourced one.
It lies inside the checkout of {NAME}, where colcon does not search in a workspace. In src/, run
    ln -s {NAME}/{MESSAGES} {MESSAGES}
and `colcon build` again. In a plain checkout, run `colcon build` at its root.
If {MESSAGES} was built on its own, source its install/setup.bash first."""
SHARED = ('launch', 'config', 'models')
"""Folders that are installed as they are, below share/karmma_ros."""


def shared_files():
    """List each folder below `SHARED` with its files, in the form that data_files wants."""
    files = sorted(
        path for folder in SHARED for path in Path(folder).rglob('*')
        if path.is_file() and '__pycache__' not in path.parts
    )
    folders = sorted({path.parent for path in files})
    return [
        (f'share/{NAME}/{folder}', [str(path) for path in files if path.parent == folder])
        for folder in folders
    ]


def has_messages(install_base):
    """
    Whether the message package is installed: below a sourced prefix, or where ours will be.

    :param install_base: folder that this package is installed to; None where that is not given.
    """
    paths = [path for name in PREFIXES for path in os.environ.get(name, '').split(os.pathsep)]
    prefixes = [Path(path) for path in paths if path]
    if install_base:
        prefixes += [Path(install_base), Path(install_base).parent]
    marker = Path('share', 'ament_index', 'resource_index', 'packages', MESSAGES)
    return any((prefix / part / marker).exists() for prefix in prefixes for part in ('', MESSAGES))


class Install(install):
    """`setup.py install --record`, which colcon calls; pip makes a wheel instead."""

    def finalize_options(self):
        """Refuse to install nodes that would not find their messages."""
        super().finalize_options()
        if self.record and not has_messages(self.install_base):
            raise SystemExit(NO_MESSAGES)


class Develop(develop):
    """`setup.py develop --editable`, which colcon calls for --symlink-install."""

    def finalize_options(self):
        """Refuse to install nodes that would not find their messages."""
        super().finalize_options()
        if getattr(self, 'editable', None) and not self.uninstall and not has_messages(None):
            raise SystemExit(NO_MESSAGES)


setup(
    name=NAME,
    version='0.1.0',
    packages=find_packages(include=[NAME, f'{NAME}.*']),
    package_data={NAME: ['py.typed', 'bags/report/templates/*', 'labelling/static/*']},
    data_files=[
        ('share/ament_index/resource_index/packages', [f'resource/{NAME}']),
        (f'share/{NAME}', ['package.xml']),
        *shared_files(),
    ],
    python_requires='>=3.10',
    install_requires=['setuptools'],
    extras_require={'test': ['pytest'], 'cluster': ['ray[client]', 'fsspec', 'obstore']},
    zip_safe=False,
    cmdclass={'install': Install, 'develop': Develop},
    author='karmma_ros maintainers',
    maintainer='karmma_ros maintainers',
    maintainer_email='maintainers@karmma-ros.example.org',
    description='Egocentric action recognition that survives missing sensors',
    license='Apache-2.0',
    entry_points={
        'console_scripts': [
            'karmma = karmma_ros.cli.main:main',
            'karmma_node = karmma_ros.node.__main__:main',
            'overlay = karmma_ros.overlay.node:main',
            'replay = karmma_ros.node.player:main',
            'watch = karmma_ros.node.watch:main',
        ],
    },
)
