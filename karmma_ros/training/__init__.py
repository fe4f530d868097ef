"""Training: losses, modality dropout and the Lightning modules."""

from karmma_ros.model.vision_operators import prepare_torchvision

prepare_torchvision()  # Lightning's metrics import torchvision
