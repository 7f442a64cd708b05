"""Run by another Python: the keys of open_clip's and transformers' configs, as JSON.

{"open_clip": {part: {key: default}}, "transformers": {part: {key: default}}}; a tool that is not
there is left out. A default that is no JSON is null.
"""

import dataclasses
import inspect
import json
import os
import sys

import transformers


def open_clip_fields():
    sys.path.append(os.path.join(sys.prefix, "torchvision"))  # see open_clip_features.py
    import torch

    operators = torch.library.Library("torchvision", "DEF")
    for name in ("nms", "qnms"):
        operators.define(f"{name}(Tensor boxes, Tensor scores, float threshold) -> Tensor")
    from open_clip import model

    whole = arguments(model.CLIP) | arguments(model.CustomTextCLIP)
    parts = {"vision_cfg": model.CLIPVisionCfg(), "text_cfg": model.CLIPTextCfg()}
    return {"": whole} | {name: dataclasses.asdict(part) for name, part in parts.items()}


def transformers_fields():
    parts = {
        "": transformers.CLIPConfig,
        "vision_config": transformers.CLIPVisionConfig,
        "text_config": transformers.CLIPTextConfig,
    }
    common = arguments(transformers.PretrainedConfig)  # of all configs, BERT's and GPT's too
    return {
        name: {key: x for key, x in arguments(part).items() if key not in common}
        for name, part in parts.items()
    }


def arguments(made):
    given = inspect.signature(made.__init__).parameters.values()
    kinds = (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)
    given = [x for x in given if x.name != "self" and x.kind not in kinds]
    return {x.name: None if x.default is x.empty else x.default for x in given}


def main():
    found = {"transformers": transformers_fields()}
    if "--open_clip" in sys.argv:
        found["open_clip"] = open_clip_fields()
    print(json.dumps(found, default=lambda _: None))


if __name__ == "__main__":
    main()
