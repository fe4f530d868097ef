"""The ament_python package karmma_ros; colcon builds it, `make env` needs no build."""

from pathlib import Path

from setuptools import find_packages, setup

NAME = 'karmma_ros'
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


setup(
    name=NAME,
    version='0.1.0',
    packages=find_packages(include=[NAME, f'{NAME}.*']),
    package_data={NAME: ['py.typed', 'evaluation/rosbag/report/page.*']},
    data_files=[
        ('share/ament_index/resource_index/packages', [f'resource/{NAME}']),
        (f'share/{NAME}', ['package.xml']),
        *shared_files(),
    ],
    python_requires='>=3.10',
    install_requires=['setuptools'],
    extras_require={'test': ['pytest']},
    zip_safe=False,
    author='karmma_ros maintainers',
    maintainer='karmma_ros maintainers',
    maintainer_email='maintainers@karmma-ros.example.org',
    description='Egocentric action recognition that survives missing sensors',
    license='Apache-2.0',
    entry_points={
        'console_scripts': [
            'karmma = karmma_ros.cli.main:main',
            'karmma_node = karmma_ros.node.__main__:main',
            'overlay = karmma_ros.node.overlay:main',
            'replay = karmma_ros.node.replay:main',
            'watch = karmma_ros.node.watch:main',
        ],
    },
)
