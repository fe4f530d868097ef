"""
Encoders of torchvision and timm, by their names, with their names of the weights.

Shape legend: b batch, c channels, t frames, h height, w width, k tiles, f mel bands, s mel
steps, n tokens, e token width.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, cast

from karmma_ros.errors import InvalidSettingError
from karmma_ros.model.encoders.video import prepare_torchvision
from torch import nn, Tensor

INTERPOLATIONS = ('bilinear', 'nearest')
DOWNLOADING = ('weights', 'pretrained')
"""Options that would download inside a constructor; `load_pretrained` loads weights."""


class TorchvisionVideo(nn.Module):
    """
    A video classifier of torchvision without its pooling and its head.

    Its weights are called as torchvision's own, after `model.`.

    :param input_shape: `[3, t, h, w]`, or `[k, f, s]` for spectrogram tiles as frames.
    :param name: a builder or a class of `torchvision.models.video`.
    :param size: height and width that every frame is resized to; None leaves it.
    :param interpolation: how it is resized, `bilinear` or `nearest`.
    :param classifier_tokens: only the tokens whose mean the model's own classifier gets: of MViT
        the class token, of S3D those it has pooled. Those of the others are so anyway.
    :param options: further arguments of the builder.
    """

    def __init__(
        self, input_shape: Sequence[int], name: str, size: Sequence[int] | None = None,
        classifier_tokens: bool = False, interpolation: str = 'bilinear', **options: Any,
    ) -> None:
        super().__init__()
        if interpolation not in INTERPOLATIONS:
            raise InvalidSettingError(
                'encoder.options.interpolation', interpolation, ' or '.join(INTERPOLATIONS))
        self.model = _video_trunk(name, options)
        name_of_class = type(self.model).__name__
        self.exportable = name_of_class != 'MViT'  # its attention is no graph of ONNX or OpenVINO
        self._tokens = (_CLASSIFIER_TOKENS if classifier_tokens else _TOKENS).get(
            name_of_class, _TOKENS[name_of_class])
        self.size = None if size is None else tuple(size)
        self.interpolation = interpolation

    def forward(self, x: Tensor) -> Tensor:
        """Encode one clip into tokens `[b, t' · h' · w', e]`, time outermost."""
        return self._tokens(self.model, as_video(x, self.size, self.interpolation))


class TimmFrames(nn.Module):
    """
    An image model of timm, run on every frame; the frames' tokens are joined over time.

    Its weights are called as timm's own, after `model.`.

    :param input_shape: `[3, t, h, w]`, or `[k, f, s]` for spectrogram tiles as frames.
    :param name: any model of `timm.list_models()`.
    :param size: height and width that every frame is resized to; None leaves it.
    :param classifier_tokens: only the token of each frame that the model's own classifier gets.
    :param options: further arguments of `timm.create_model`.
    """

    def __init__(
        self, input_shape: Sequence[int], name: str, size: Sequence[int] | None = None,
        classifier_tokens: bool = False, **options: Any,
    ) -> None:
        super().__init__()
        self.classifier_tokens = classifier_tokens
        prepare_torchvision()
        import timm  # takes seconds, and is not needed by the smaller networks

        if not timm.is_model(name):
            raise InvalidSettingError(
                'timm model', name, 'one of timm.list_models()',
                'it may need a newer timm; a name on the Hub is not one')
        if timm.models.get_pretrained_cfg_value(name, 'fixed_input_size'):
            options = {'img_size': tuple(size or input_shape[-2:]), **options}
        self.size = None if size is None else tuple(size)
        self.model = timm.create_model(name, pretrained=False, num_classes=0, **options)
        self.channels_last = getattr(self.model, 'output_fmt', 'NCHW') == 'NHWC'

    def forward(self, x: Tensor) -> Tensor:
        """Encode one clip into tokens `[b, t · n, e]`, time outermost."""
        x = as_video(x, self.size)
        frames = x.transpose(1, 2).flatten(0, 1)  # [b · t, 3, h, w]
        tokens = cast(Any, self.model).forward_features(frames)
        if self.classifier_tokens:
            tokens = cast(Any, self.model).forward_head(tokens, pre_logits=True)  # [b · t, e]
            return tokens.unflatten(0, (len(x), -1))
        if tokens.ndim == 4:
            tokens = tokens.flatten(1, 2) if self.channels_last else tokens.flatten(2).mT
        return tokens.reshape(len(x), -1, tokens.shape[-1])  # [b, t · n, e]


def as_video(
    x: Tensor, size: tuple[int, ...] | None, interpolation: str = 'bilinear',
) -> Tensor:
    """
    View video, or spectrogram tiles, as frames of three channels.

    :param x: `[b, 3, t, h, w]` or tiles `[b, k, f, s]`, which become grey frames.
    :param size: height and width to resize to; None leaves them.
    :param interpolation: one of `INTERPOLATIONS`.
    :returns: `[b, 3, t, h, w]`.
    """
    if x.ndim == 4:
        x = x.unsqueeze(1)  # [b, 1, k, f, s]
    if size is not None and x.shape[-2:] != size:
        frames = x.transpose(1, 2).flatten(0, 1)  # [b · t, c, h, w]
        frames = nn.functional.interpolate(frames, size, mode=interpolation, antialias=False)
        x = frames.unflatten(0, (len(x), -1)).transpose(1, 2)
    return x.expand(-1, 3, -1, -1, -1)


def _video_trunk(name: str, options: dict[str, Any]) -> nn.Module:
    prepare_torchvision()
    from torchvision.models import video  # type: ignore[import-untyped]

    builder = getattr(video, name, None)
    model = builder(**options) if callable(builder) else None
    head = _HEADS.get(type(model).__name__)
    if not isinstance(model, nn.Module) or head is None:
        raise InvalidSettingError(
            'torchvision model', name, 'one of torchvision.models.video: swin3d_t, swin3d_s, '
            'swin3d_b, mvit_v1_b, mvit_v2_s, r3d_18, mc3_18, r2plus1d_18, s3d')
    setattr(model, head, nn.Identity())
    return model


def _swin_tokens(model: Any, x: Tensor) -> Tensor:
    x = model.pos_drop(model.patch_embed(x))  # [b, t', h', w', e]
    tokens: Tensor = model.norm(model.features(x))
    return tokens.flatten(1, 3)


def _resnet_tokens(model: Any, x: Tensor) -> Tensor:
    x = model.stem(x)
    for layer in (model.layer1, model.layer2, model.layer3, model.layer4):
        x = layer(x)  # [b, e, t', h', w']
    return x.flatten(2).mT


def _s3d_tokens(model: Any, x: Tensor) -> Tensor:
    tokens: Tensor = model.features(x)  # [b, e, t', h', w']
    return tokens.flatten(2).mT


def _pooled_s3d_tokens(model: Any, x: Tensor) -> Tensor:
    tokens: Tensor = model.avgpool(model.features(x))
    return tokens.flatten(2).mT


def _mvit_tokens(model: Any, x: Tensor) -> Tensor:
    x = model.pos_encoding(model.conv_proj(x).flatten(2).mT)  # [b, 1 + n, e]
    size = (model.pos_encoding.temporal_size, *model.pos_encoding.spatial_size)
    for block in model.blocks:
        x, size = block(x, size)
    tokens: Tensor = model.norm(x)
    return tokens


def _mvit_class_token(model: Any, x: Tensor) -> Tensor:
    return _mvit_tokens(model, x)[:, :1]


_HEADS = {
    'SwinTransformer3d': 'head', 'VideoResNet': 'fc', 'S3D': 'classifier', 'MViT': 'head'}
"""The classifier of each class of model."""

_TOKENS: dict[str, Callable[[Any, Tensor], Tensor]] = {
    'SwinTransformer3d': _swin_tokens,
    'VideoResNet': _resnet_tokens,
    'S3D': _s3d_tokens,
    'MViT': _mvit_tokens,
}
"""The last feature map of each class of model, as tokens; of MViT the class token is first."""

_CLASSIFIER_TOKENS: dict[str, Callable[[Any, Tensor], Tensor]] = {
    'S3D': _pooled_s3d_tokens,
    'MViT': _mvit_class_token,
}
"""What the classifier gets, where that is not the mean of all tokens."""


def check_options(setting: str, options: dict[str, Any]) -> None:
    """
    Refuse options that would download.

    :raises InvalidSettingError: when there is one.
    """
    for key in DOWNLOADING:
        if key in options:
            raise InvalidSettingError(
                f'{setting}.options', {key: options[key]}, 'without ' + ' and '.join(DOWNLOADING),
                "name them in the encoder's `weights`; load_pretrained loads them")
