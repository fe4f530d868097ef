"""The cure for torchvision's import, in an interpreter of its own."""

import subprocess
import sys

CURED = """
from karmma_ros.model.encoders.video import prepare_torchvision
prepare_torchvision()
prepare_torchvision()
import torchvision
print(torchvision.models.video.swin3d_t.__name__)
"""


def test_torchvision_imports_whatever_its_build():
    done = subprocess.run([sys.executable, '-c', CURED], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == 'swin3d_t'
