"""The models for users of timm: after `register()`, ``timm.create_model("pnasnet5_large")`` builds them.

Names are those of `list_models`, none of which timm itself has; timm allows no slash in a name.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from pnas_fast.network import CellNetwork
from pnas_fast.zoo.create import create_model, list_models
from pnas_fast.zoo.errors import ZooError
from pnas_fast.zoo.models import MODELS

default_cfgs: dict[str, dict[str, Any]] = {}
"""Where timm looks for image sizes and preprocessing when a model is registered."""

_IGNORED = ("pretrained_cfg", "pretrained_cfg_overlay", "cache_dir")
"""Arguments of timm's own that come with every call."""


def register() -> list[str]:
    """Tell timm of every model; the names. Once is enough, more does nothing.

    Raises:
        ZooError: timm is not installed.
    """
    try:
        from timm.models import is_model, register_model
    except ImportError as error:
        raise ZooError(f"timm cannot be imported ({error}); install it with: pip install timm") from error
    module = sys.modules[__name__]
    for name in list_models():
        if not is_model(name):
            default_cfgs[name] = _configuration(name)
            entry = _entry(name)
            setattr(module, name, entry)
            register_model(entry)
    return list_models()


def _entry(name: str) -> Callable[..., CellNetwork]:
    def create(
        pretrained: bool = False,
        num_classes: int | None = None,
        in_chans: int = 3,
        features_only: bool = False,
        drop_path_rate: float | None = None,
        **arguments: Any,
    ) -> CellNetwork:
        if features_only:
            raise ZooError(f"model {name!r}: features_only is not served, allowed is the classifier")
        unknown = sorted(set(arguments) - set(_IGNORED))
        if unknown:
            raise ZooError(
                f"model {name!r}: unknown argument {unknown[0]!r}, allowed are "
                "pretrained num_classes in_chans drop_path_rate"
            )
        size = MODELS[name].image_size
        network = create_model(
            name,
            classes=num_classes,
            image_shape=(in_chans, size, size),
            pretrained=pretrained,
            drop_path=drop_path_rate,
        )
        configuration = default_cfgs[name] | {
            "architecture": name,
            "num_classes": network.classifier.out_features,
        }
        # What timm's data loaders and head changes ask a model for.
        network.pretrained_cfg = network.default_cfg = configuration  # type: ignore[assignment]
        return network

    create.__name__ = create.__qualname__ = name
    create.__doc__ = f"{MODELS[name].title}; see `pnas_fast.zoo.create_model`."
    return create


def _configuration(name: str) -> dict[str, Any]:
    model = MODELS[name]
    configuration: dict[str, Any] = {
        "input_size": (3, model.image_size, model.image_size),
        "num_classes": model.classes,
        "interpolation": "bilinear",
        "first_conv": "stem",
        "classifier": "classifier",
    }
    if model.preprocessing is not None:
        kept = model.preprocessing
        configuration |= {"crop_pct": kept.crop, "mean": kept.mean, "std": kept.std}
    return configuration
