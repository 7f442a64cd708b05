"""Code that comes with a model, as MiniCPM-V's does; it leaves a file where it ran."""

import pathlib

import torch
import transformers


class ChatConfig(transformers.PretrainedConfig):
    model_type = "tiny_chat"


class ChatModel(transformers.PreTrainedModel):
    config_class = ChatConfig

    def __init__(self, config):
        super().__init__(config)
        self.layer = torch.nn.Linear(2, 2)
        pathlib.Path(config.marker).touch()
        self.post_init()

    def chat(self, image, msgs, tokenizer, sampling, max_new_tokens, temperature=1.0, top_p=1.0):
        shown, _ = msgs[-1]["content"]
        number = int(torch.randint(1000, ()))
        return f"Caption: the person of {shown.width} by {shown.height} is in coat {number}"
