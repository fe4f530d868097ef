"""Training: losses, modality dropout and the Lightning modules."""

from karmma_ros.model.encoders.video import prepare_torchvision

prepare_torchvision()  # Lightning's metrics import torchvision
