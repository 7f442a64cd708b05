"""Makes tiny models of random weights that speak English words: PYTHON tiny_mllm.py KIND FOLDER.

KIND: qwen2_vl, qwen2_5_vl, qwen3_vl, internvl, llava (image and text) or qwen2 (text). Their
vocabulary is words of captions, so that what a random model says passes for one now and then.
"""

import sys

import torch
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers

IMAGE = "<|image_pad|>"
SPECIAL = ("<pad>", "<end>", "<unk>", IMAGE, "<|vision_start|>", "<|vision_end|>", "<|video_pad|>")
THINGS = ("coat", "jacket", "shirt", "trousers", "jeans", "skirt", "shoes", "boots", "bag", "hat")
WORDS = (
    *("a", "woman", "man", "person", "in", "with", "and", "is", "wearing", "the", "of", "on"),
    *("his", "her", "has", "to", "red", "blue", "green", "black", "white", "grey", "long"),
    *THINGS,
    *(f"{thing}." for thing in (*THINGS, "hair", "park", "street", "backpack", "dress", "scarf")),
)  # many end a sentence: what is cut off within one is refused
INTERNVL = {
    "start_image_token": "<|vision_start|>",
    "end_image_token": "<|vision_end|>",
    "context_image_token": IMAGE,
    "video_token": "<|video_pad|>",
}  # that its processor asks the tokenizer for
TEMPLATE = (
    "{% for m in messages %}{% if m.content is string %}{{ m.content }}{% else %}"
    "{% for c in m.content %}{% if c.type == 'image' %}<|vision_start|> <|image_pad|> "
    "<|vision_end|> {% else %}{{ c.text }}{% endif %}{% endfor %}{% endif %}{% endfor %}"
)
TEXT = dict(
    hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=2,
    num_key_value_heads=1, max_position_embeddings=1024,
)  # fmt: skip


def make_tokenizer() -> transformers.PreTrainedTokenizerFast:
    words = {word: number for number, word in enumerate([*SPECIAL, *WORDS])}
    inner = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=inner,
        pad_token="<pad>",
        eos_token="<end>",
        unk_token="<unk>",
        additional_special_tokens=list(SPECIAL[3:]),
        chat_template=TEMPLATE,
        model_input_names=["input_ids", "attention_mask"],
        extra_special_tokens=INTERNVL,
    )


def main() -> None:
    kind, folder = sys.argv[1:]
    torch.manual_seed(0)
    tokenizer = make_tokenizer()
    ids = {
        "vocab_size": len(tokenizer),
        "eos_token_id": 1,
        "pad_token_id": 0,
        "bos_token_id": None,
    }
    network, images = MAKERS[kind](ids)
    # So random a model says the same word again and again unless its words are far apart.
    network.get_output_embeddings().weight.data.normal_(std=0.5)
    network.get_output_embeddings().weight.data[: len(SPECIAL)] = 0
    network.get_output_embeddings().weight.data[1] = 0.1
    network.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    if images is not None:
        images.save_pretrained(folder)


def make_qwen2(ids):
    return transformers.Qwen2ForCausalLM(transformers.Qwen2Config(**TEXT, **ids)), None


def make_qwen2_vl(ids, kind="Qwen2VL", **vision):
    rope = {"type": "mrope", "mrope_section": [2, 3, 3]}
    vision = dict(depth=1, num_heads=2, patch_size=14) | vision
    config = getattr(transformers, f"{kind}Config")(
        text_config=TEXT | ids | {"rope_scaling": rope},
        vision_config=vision,
        image_token_id=SPECIAL.index(IMAGE),
        vision_start_token_id=4,
        vision_end_token_id=5,
        video_token_id=6,
        **ids,
    )
    network = getattr(transformers, f"{kind}ForConditionalGeneration")(config)
    images = transformers.Qwen2VLImageProcessor(min_pixels=28 * 28, max_pixels=28 * 56)
    images._processor_class = f"{kind}Processor"
    return network, images


def make_llava(ids):
    """A model whose processor reads no videos, so that it loads without torchvision."""
    vision = transformers.CLIPVisionConfig(
        hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=2,
        image_size=28, patch_size=14,
    )  # fmt: skip
    config = transformers.LlavaConfig(
        vision_config=vision,
        text_config=transformers.Qwen2Config(**TEXT, **ids),
        image_token_index=SPECIAL.index(IMAGE),
        vision_feature_layer=-1,
    )
    config.eos_token_id, config.pad_token_id = ids["eos_token_id"], ids["pad_token_id"]
    size = {"height": 28, "width": 28}
    processor = transformers.LlavaProcessor(
        image_processor=transformers.CLIPImageProcessor(size=size, do_center_crop=False),
        tokenizer=make_tokenizer(),
        patch_size=14,
        vision_feature_select_strategy="default",
        image_token=IMAGE,
        num_additional_image_tokens=1,
    )
    network = transformers.LlavaForConditionalGeneration(config)
    # So large that the words depend on what is seen.
    network.model.multi_modal_projector.linear_2.weight.data.normal_()
    return network, processor


ROPE = {"rope_type": "default", "mrope_section": [2, 3, 3]}


def make_qwen3_vl(ids):
    """Its processor's `size` is that of the published Qwen3-VL."""
    config = transformers.Qwen3VLConfig(
        text_config=TEXT | ids | {"head_dim": 16, "rope_scaling": ROPE},
        vision_config=dict(
            depth=1, num_heads=2, patch_size=16, hidden_size=32, intermediate_size=48,
            out_hidden_size=32, num_position_embeddings=64, deepstack_visual_indexes=[0],
        ),
        image_token_id=SPECIAL.index(IMAGE), vision_start_token_id=4, vision_end_token_id=5,
        video_token_id=6,
    )  # fmt: skip
    network = transformers.Qwen3VLForConditionalGeneration(config)
    images = transformers.Qwen2VLImageProcessor(patch_size=16)
    images.size = {"shortest_edge": 65536, "longest_edge": 16777216}
    for key in ("min_pixels", "max_pixels"):  # the published file has none
        vars(images).pop(key, None)
    images._processor_class = "Qwen3VLProcessor"
    return network, images


class NoVideos(transformers.BaseVideoProcessor):
    """What reads videos wants torchvision, and is not saved here."""

    def save_pretrained(self, *_, **__):
        pass

    def to_dict(self):
        return {}


def make_internvl(ids):
    config = transformers.InternVLConfig(
        vision_config=dict(
            hidden_size=32, intermediate_size=48, num_hidden_layers=1, num_attention_heads=2,
            image_size=[28, 28], patch_size=[7, 7],
        ),
        text_config=transformers.Qwen2Config(**TEXT, **ids),
        image_token_id=SPECIAL.index(IMAGE), image_seq_length=4,
    )  # fmt: skip
    network = transformers.InternVLForConditionalGeneration(config)
    images = transformers.GotOcr2ImageProcessor(size={"height": 28, "width": 28})
    videos = object.__new__(NoVideos)
    processor = transformers.InternVLProcessor(images, make_tokenizer(), videos, image_seq_length=4)
    return network, processor


MAKERS = {
    "llava": make_llava,
    "internvl": make_internvl,
    "qwen3_vl": make_qwen3_vl,
    "qwen2": make_qwen2,
    "qwen2_vl": lambda ids: make_qwen2_vl(ids, embed_dim=32, hidden_size=32, mlp_ratio=2),
    "qwen2_5_vl": lambda ids: make_qwen2_vl(
        ids, "Qwen2_5_VL", hidden_size=32, out_hidden_size=32, intermediate_size=48
    ),
}

if __name__ == "__main__":
    main()
